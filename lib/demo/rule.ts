import { featureDistance } from '../eval/quality.ts';
import { loadNetwork } from '../faces/networks.ts';
import { affine, cast } from '../graph/ops/elementwise.ts';
import { input } from '../graph/tensor.ts';
import type { Rgb } from '../image/picture.ts';
import { FaceRecognition } from '../models/faceapi.ts';
import type { Device, Parameters, Program } from '../runtime/index.ts';

/**
 * What stands in for people: of two restorations of one face, the one is preferred whose features in face-api's recognition
 * network are nearer to those of the original ({@link featureDistance}). It sees the original, which judges do not.
 */
export class Rule {
  readonly #parameters: Parameters;
  readonly #program: Program;

  private constructor(parameters: Parameters, program: Program) {
    this.#parameters = parameters;
    this.#program = program;
  }

  /** @param size side of the pictures that are compared */
  static async load(device: Device, size: number): Promise<Rule> {
    const parameters = device.parameters();
    try {
      const network = await loadNetwork(parameters, 'face_recognition', () => new FaceRecognition());
      const [a, b] = ['restored', 'clean'].map((name) =>
        affine(cast(input(name, [1, size, size, 3], 'u8'), 'f32'), 1 / 255),
      );
      const outputs = { distance: featureDistance(network, a, b) };
      return new Rule(parameters, await device.compile({ outputs }, { parameters }));
    } catch (error) {
      parameters.dispose();
      throw error;
    }
  }

  async distance(restored: Rgb, clean: Rgb): Promise<number> {
    return (await this.#program.run({ restored: restored.data, clean: clean.data })).distance[0];
  }

  [Symbol.dispose](): void {
    this.#program.dispose();
    this.#parameters.dispose();
  }
}
