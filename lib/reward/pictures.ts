import { ReflError } from '../errors.ts';
import { affine, cast, div } from '../graph/ops/elementwise.ts';
import { input, type Tensor } from '../graph/tensor.ts';
import { decodeImage, type ImageSource, nameOf, type Rgb } from '../image/picture.ts';
import type { Device, Program } from '../runtime/index.ts';
import { diffusionRewardPreprocess, hpsPreprocess, padToSquare, type Resampling } from './preprocess.ts';

/** How a picture [1, H, W, 3] in [0, 1] becomes what the image tower takes, of side `size`. */
type Preprocess = (x: Tensor, size: number) => Tensor;

/** HPS leaves a picture whose longer side fits already as narrow as it is, and its tower then fails: it is padded here. */
const hps =
  (resampling: Resampling): Preprocess =>
  (x, size) =>
    hpsPreprocess(Math.max(x.shape[1], x.shape[2]) === size ? padToSquare(x, size) : x, { size, resampling });

const diffusionReward =
  (antialias: boolean): Preprocess =>
  (x, size) =>
    diffusionRewardPreprocess(affine(x, 2, -1), { size, antialias });

/** What `preprocessing` may be; see ./preprocess.ts. */
export const preprocessings = {
  hps: hps('antialias'),
  'hps-plain': hps('plain'),
  'hps-pil': hps('pil'),
  diffusionreward: diffusionReward(true),
  'diffusionreward-plain': diffusionReward(false),
} satisfies Record<string, Preprocess>;

export type Preprocessing = keyof typeof preprocessings;

/** Throws ERR_OPTION on a name that is not among {@link preprocessings}. */
export function checkPreprocessing(name: string): void {
  if (Object.hasOwn(preprocessings, name)) return;
  throw new ReflError(
    'ERR_OPTION',
    `unknown preprocessing ${name}: expected ${Object.keys(preprocessings).join(', ')}`,
  );
}

/** Sizes of pictures whose programs are kept: data sets have one size, or a few. */
const mostSizes = 16;

/** Makes pictures of any size what an image tower takes. */
export class Pictures {
  readonly #device: Device;
  readonly #size: number;
  readonly #preprocess: Preprocess;
  /** By width and height, least recently used first. */
  readonly #programs = new Map<string, Promise<Program>>();
  #running = 0;

  /** @param size side of the tower's images */
  constructor(device: Device, size: number, preprocessing: Preprocessing) {
    this.#device = device;
    this.#size = size;
    this.#preprocess = preprocessings[preprocessing];
  }

  /** A picture's values, float32 [size, size, 3]. Throws ERR_FILE and ERR_IMAGE, naming the picture. */
  async prepare(source: ImageSource): Promise<Float32Array> {
    return this.prepareDecoded(await decodeImage(source), nameOf(source));
  }

  /** The same of a picture that is read already, which errors call `name`. */
  async prepareDecoded({ width, height, data }: Rgb, name: string): Promise<Float32Array> {
    this.#running++;
    try {
      const program = await this.#program(width, height, name);
      return (await program.run({ picture: data })).image as Float32Array;
    } finally {
      if (--this.#running === 0) this.#trim();
    }
  }

  #program(width: number, height: number, name: string): Promise<Program> {
    const key = `${width}x${height}`;
    const known = this.#programs.get(key);
    const program = known ?? this.#device.compile({ outputs: { image: this.#trace(width, height, name) } });
    this.#programs.delete(key);
    this.#programs.set(key, program);
    return program;
  }

  #trace(width: number, height: number, name: string): Tensor {
    const picture = div(cast(input('picture', [1, height, width, 3], 'u8'), 'f32'), 255);
    let image: Tensor;
    try {
      image = this.#preprocess(picture, this.#size);
    } catch (cause) {
      throw new ReflError('ERR_IMAGE', `${name}: ${(cause as Error).message}`, { cause });
    }
    if (image.shape[1] !== this.#size || image.shape[2] !== this.#size) {
      const why = `this preprocessing takes squares, the picture has ${width}x${height} pixels: use hps, or crop it`;
      throw new ReflError('ERR_IMAGE', `${name}: ${why}`);
    }
    return image;
  }

  /** Only while nothing runs: a program that is waited for must not be taken away. */
  #trim(): void {
    for (const [key, program] of this.#programs) {
      if (this.#programs.size <= mostSizes) return;
      this.#programs.delete(key);
      release(program);
    }
  }

  dispose(): void {
    for (const program of this.#programs.values()) release(program);
    this.#programs.clear();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** A run under way goes to its end first. */
function release(program: Promise<Program>): void {
  program.then(
    (compiled) => compiled.dispose(),
    () => {},
  );
}
