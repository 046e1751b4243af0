import { basename, parse } from 'node:path';
import { decodeImage, encodePng, type Rgb } from '../image/picture.ts';
import type { Candidate } from '../restore/candidates.ts';
import { filters } from '../restore/filters.ts';
import { CropModel } from '../restore/model.ts';
import type { Device } from '../runtime/index.ts';

/** What becomes of an input and what face-256 makes of it. */
type Way = (input: Rgb, restored: () => Promise<Rgb>) => Promise<Rgb>;

const filtered =
  (name: keyof typeof filters): Way =>
  (input) =>
    filters[name](input);

/**
 * The restorers whose pictures are compared: face-256, weaker and stronger forms of it, and three filters. Four of them are
 * drawn for each input.
 */
const ways: Readonly<Record<string, { recipe: string; restore: Way }>> = {
  'face-256': { recipe: 'face-256', restore: (_, restored) => restored() },
  half: {
    recipe: 'the mean of the input and face-256',
    restore: async (input, restored) => mean(input, await restored()),
  },
  crisp: { recipe: 'face-256, sharpened', restore: async (_, restored) => filters.sharpen(await restored()) },
  bicubic: { recipe: 'bicubic', restore: filtered('bicubic') },
  sharpen: { recipe: 'sharpen', restore: filtered('sharpen') },
  denoise: { recipe: 'denoise', restore: filtered('denoise') },
};

/** Pixel by pixel. */
const mean = (a: Rgb, b: Rgb): Rgb => ({ ...a, data: a.data.map((value, i) => (value + b.data[i] + 1) >> 1) });

/** Has face-256 restore every input once, whoever asks for it. */
export class DemoRestorers {
  readonly candidates: readonly Candidate[];
  readonly #model: CropModel;
  readonly #restored = new Map<string, Promise<Rgb>>();

  private constructor(model: CropModel) {
    this.#model = model;
    this.candidates = Object.entries(ways).map(([name, { recipe, restore }]) => ({
      name,
      recipe: { recipe },
      open: async () => ({
        restore: async (path: string, signal?: AbortSignal) => {
          const input = await decodeImage(path);
          return encodePng(await restore(input, () => this.#restore(path, input, signal)));
        },
        [Symbol.dispose]: () => {},
      }),
    }));
  }

  static async load(device: Device): Promise<DemoRestorers> {
    return new DemoRestorers(await CropModel.load(device, 'face-256'));
  }

  #restore(path: string, input: Rgb, signal?: AbortSignal): Promise<Rgb> {
    let restored = this.#restored.get(path);
    if (!restored) {
      restored = this.#model.restore([input], { batch: 1, seed: 0, signal }).then(([picture]) => picture);
      this.#restored.set(path, restored);
    }
    return restored;
  }

  [Symbol.dispose](): void {
    this.#model.dispose();
  }
}

/** The restorer of a candidate, by the path that makeCandidates gave it. */
export const restorerOf = (picture: string): string => parse(picture).name;

/** The name of the input that a candidate restores. */
export const faceOf = (picture: string): string => basename(parse(picture).dir);
