import sharp from 'sharp';
import { Draws } from '../../data/draws.ts';
import { inputNames } from '../../graph/grad.ts';
import { affine, cast, clamp } from '../../graph/ops/elementwise.ts';
import { concat } from '../../graph/ops/layout.ts';
import { mean } from '../../graph/ops/reduce.ts';
import { input, type Tensor } from '../../graph/tensor.ts';
import { writeAtomic } from '../../image/files.ts';
import type { Judged, Reward } from '../../reward/reward.ts';
import type { Device, Parameters, Program } from '../../runtime/index.ts';
import type { Caption, StepImages } from './session.ts';
import type { Trainee } from './trainees.ts';
import { type Observation, signalsOf } from './watch.ts';

/** How held-out images are looked at. */
export interface ValidationModels {
  readonly trainee: Trainee;
  /** Tokens of the caption of pictures that have none of their own. */
  readonly caption: Int32Array;
  /** Captions by the numbers of {@link Held}'s pictures. */
  readonly captions?: readonly Caption[];
  /** The judge that the restorer trains by. */
  readonly reward: Reward;
  /** One that nobody learns from. */
  readonly independent?: Reward;
  /** Distances of images and photographs, each [N], by name. */
  readonly distances: Measures;
  /** Anything else that is to be written down, each [N], by name. */
  readonly others?: Measures;
}

/** Values of images beside their photographs, each [N], by name. */
export type Measures = Readonly<Record<string, (judged: Judged) => Tensor>>;

/** Images that are not trained on. */
export interface Held {
  readonly held: StepImages;
  readonly side: number;
}

/** How the images did, and what they look like. */
export interface Observed {
  readonly observation: Observation;
  /** What {@link Observation} has the means of, image by image: rewards, distances and others by their names. */
  readonly each: Each;
  /** Rows of pixels, each `height` high. */
  readonly grid: { readonly rows: readonly Uint8Array[]; readonly width: number; readonly height: number };
}

/** Values of images one by one, by the name of what was measured. */
export type Each = Readonly<Record<string, readonly number[]>>;

/** Tells what is drawn for held-out images from what is drawn for training ones, which goes by seed, step and place. */
const heldOut = 0x68656c64;
const prefixes = { distances: 'distance.', others: 'other.' } as const;

/** Restores the same held-out images again and again, always with the same noise, and says how they do. */
export class Validation {
  private readonly models: ValidationModels;
  private readonly program: Program;
  /** Names of what the program reads. */
  private readonly read: ReadonlySet<string>;
  private readonly held: StepImages;
  private readonly side: number;

  private constructor(models: ValidationModels, program: Program, read: ReadonlySet<string>, { held, side }: Held) {
    this.models = models;
    this.program = program;
    this.read = read;
    this.held = held;
    this.side = side;
  }

  static async create(
    device: Device,
    parameters: Parameters,
    models: ValidationModels,
    held: Held,
  ): Promise<Validation> {
    const { side } = held;
    const { trainee, reward, independent, distances, others = {}, caption } = models;
    const { images } = trainee.restore(1);
    const targets = input('targets', [1, side, side, 3]);
    const judged = { images, targets, captions: input('captions', [1, caption.length], 'i32') };
    const measured = (prefix: string, measures: Measures): Record<string, Tensor> =>
      Object.fromEntries(Object.entries(measures).map(([name, measure]) => [prefix + name, measure(judged)]));
    const scalars = {
      ...signalsOf(images, targets),
      reward: reward.score(judged),
      photographs: reward.score({ ...judged, images: targets }),
      ...(independent ? { independent: independent.score(judged) } : {}),
      ...measured(prefixes.distances, distances),
      ...measured(prefixes.others, others),
    };
    const means = Object.fromEntries(Object.entries(scalars).map(([name, value]) => [name, mean(value)]));
    const outputs = { ...means, row: pixels(concat([input('seen', [1, side, side, 3]), images, targets], 2)) };
    const program = await device.compile({ outputs }, { parameters });
    return new Validation(models, program, inputNames(Object.values(outputs)), held);
  }

  /** Restores all images with the weights as they are now. */
  async observe(): Promise<Observed> {
    const size = this.side * this.side * 3;
    const { trainee, caption, captions } = this.models;
    const { degraded, clean, pictures } = this.held;
    const count = degraded.length / size;
    const each: Record<string, number[]> = {};
    const rows: Uint8Array[] = [];
    for (let i = 0; i < count; i++) {
      const [seen, targets] = [degraded, clean].map((all) => all.subarray(i * size, (i + 1) * size));
      const said = captions?.[pictures?.[i] ?? -1];
      const entered = await trainee.enter([{ degraded: seen, draws: new Draws(heldOut, i), text: said?.text }]);
      const feeds = Object.entries({ ...entered, seen, targets, captions: said?.ids ?? caption });
      const { row, ...values } = await this.program.run(
        Object.fromEntries(feeds.filter(([name]) => this.read.has(name))),
      );
      rows.push(row as Uint8Array);
      for (const [name, [value]] of Object.entries(values)) {
        if (!(name in each)) each[name] = [];
        each[name].push(Number(value));
      }
    }
    const means = Object.fromEntries(
      Object.entries(each).map(([name, all]) => [name, all.reduce((sum, value) => sum + value / count, 0)]),
    );
    const under = (prefix: string): Record<string, number> => {
      const own = Object.entries(means).filter(([name]) => name.startsWith(prefix));
      return Object.fromEntries(own.map(([name, value]) => [name.slice(prefix.length), value]));
    };
    const { detail, repetition, colour, reward, photographs, independent } = means;
    const others = under(prefixes.others);
    const observation = {
      ...{ detail, repetition, colour, reward, photographs },
      ...(independent === undefined ? {} : { independent }),
      distances: under(prefixes.distances),
      ...(Object.keys(others).length ? { others } : {}),
    };
    const bare = (name: string): string => name.slice(name.indexOf('.') + 1);
    return {
      observation,
      each: Object.fromEntries(Object.entries(each).map(([name, all]) => [bare(name), all])),
      grid: { rows, width: 3 * this.side, height: this.side },
    };
  }

  dispose(): void {
    this.program.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** Writes the pictures as a PNG: a row each of what came in, what was made of it, and the photograph. */
export async function writeGrid(path: string, { rows, width, height }: Observed['grid']): Promise<void> {
  const raw = { width, height: height * rows.length, channels: 3 } as const;
  await writeAtomic(path, await sharp(Buffer.concat(rows), { raw }).png().toBuffer());
}

/** Images as bytes. A cast cuts the fraction off, so a half is added first. */
const pixels = (x: Tensor): Tensor => cast(affine(clamp(x, 0, 1), 255, 0.5), 'u8');
