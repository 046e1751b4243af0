import { input } from '../graph/tensor.ts';
import { type Rgb, sharpOf } from '../image/picture.ts';
import { FaceRecognition } from '../models/faceapi.ts';
import type { Device, Parameters, Program } from '../runtime/index.ts';
import { type Face, innerFace } from './align.ts';
import { cropFace } from './crop.ts';
import { loadNetwork } from './networks.ts';

const { size } = FaceRecognition;

/** Tells persons apart, by the recognition network of @vladmandic/face-api. */
export class FaceRecogniser {
  private readonly device: Device;
  private readonly parameters: Parameters;
  private readonly program: Program;

  private constructor(device: Device, parameters: Parameters, program: Program) {
    this.device = device;
    this.parameters = parameters;
    this.program = program;
  }

  /** Reads the network. Throws ERR_FILE or ERR_WEIGHTS where the package's files are missing or not as they should be. */
  static async load(device: Device): Promise<FaceRecogniser> {
    const parameters = device.parameters();
    try {
      const network = await loadNetwork(parameters, 'face_recognition', () => new FaceRecognition());
      const outputs = { embedding: network.forward(input('image', [1, size, size, 3])) };
      return new FaceRecogniser(device, parameters, await device.compile({ outputs }, { parameters }));
    } catch (error) {
      parameters.dispose();
      throw error;
    }
  }

  /**
   * 128 numbers that are close for pictures of one person: the mean over the aligned face and its mirror image. Distances
   * between different persons are rarely below 0.5.
   */
  async embed(photograph: Rgb, face: Face): Promise<Float32Array> {
    const chip = await cropFace(this.device, photograph, innerFace(face, size), size);
    const plain = await this.recognise(chip);
    const mirrored = await this.recognise({ ...chip, data: await sharpOf(chip).flop().raw().toBuffer() });
    return plain.map((v, i) => (v + mirrored[i]) / 2);
  }

  /** The network's 128 numbers for a face of 150 x 150 pixels. */
  async recognise(chip: Rgb): Promise<Float32Array> {
    const { embedding } = await this.program.run({ image: Float32Array.from(chip.data) });
    return embedding as Float32Array;
  }

  /** Frees the network. Safe to call twice. */
  dispose(): void {
    this.program.dispose();
    this.parameters.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
