import { join, relative, sep } from 'node:path';
import { type Degradation, Degrader, drawDegradation } from '../data/degrade.ts';
import { Draws } from '../data/draws.ts';
import { JsonLinesFile, textOf } from '../data/jsonl.ts';
import { makeFolder, writeAtomic } from '../image/files.ts';
import { decodeImage, encodePng, middleOf, type Rgb, sharpOf } from '../image/picture.ts';
import type { Device } from '../runtime/index.ts';
import type { ClearFace } from './faces.ts';

/** A degraded face and its original, both square and of one size. */
export interface Input {
  readonly id: string;
  readonly person: string;
  readonly kind: ClearFace['kind'];
  /** Its number among those of its kind. */
  readonly number: number;
  readonly clean: string;
  readonly degraded: string;
}

/** Those whom nothing may be trained on, in order. */
export const heldOutPeople = (inputs: readonly Input[]): string[] =>
  [...new Set(inputs.filter(({ kind }) => kind === 'heldout').map(({ person }) => person))].sort();

export interface InputOptions {
  /** Folder for clean/, degraded/ and inputs.jsonl. */
  readonly out: string;
  /** Inputs of each kind, which take turns among its faces. */
  readonly counts: Readonly<Record<ClearFace['kind'], number>>;
  /** Side of the squares, in pixels: at most that of the pictures. */
  readonly size: number;
  readonly seed: number;
  /** Whether all squares are the middles of their pictures, where faces are aligned, and none is mirrored. */
  readonly centred?: boolean;
  readonly signal?: AbortSignal;
  readonly onDone?: (done: number, total: number) => void;
}

/**
 * Cuts a square out of each face, in a place of its own, mirrored at even odds, and degrades it as `data degrade` does. What
 * is drawn depends on the seed and the input's name alone; a line each in inputs.jsonl says it. Started again, it goes on.
 */
export async function makeInputs(
  device: Device,
  faces: readonly ClearFace[],
  { out, counts, size, seed, centred = false, signal, onDone }: InputOptions,
): Promise<Input[]> {
  for (const folder of [out, join(out, 'clean'), join(out, 'degraded')]) await makeFolder(folder);
  await using manifest = await JsonLinesFile.open(join(out, 'inputs.jsonl'));
  const known = new Set(manifest.lines.map((line) => textOf(line, 'id')));
  const wanted = (Object.keys(counts) as ClearFace['kind'][]).flatMap((kind) => {
    const own = faces.filter((face) => face.kind === kind);
    return Array.from({ length: own.length ? counts[kind] : 0 }, (_, i) => ({
      face: own[i % own.length],
      number: i,
      id: `${kind}-${String(i).padStart(4, '0')}`,
    }));
  });
  using degrader = new Degrader(device);
  const inputs: Input[] = [];
  for (const [done, { face, id, number }] of wanted.entries()) {
    signal?.throwIfAborted();
    const { person, kind } = face;
    const [clean, degraded] = ['clean', 'degraded'].map((folder) => join(out, folder, `${id}.png`));
    inputs.push({ id, person, kind, number, clean, degraded });
    if (known.has(id)) continue;
    const draws = new Draws(seed, ...Buffer.from(id));
    const whole = await decodeImage(face.path);
    const picture = await (centred ? middleOf(whole, size) : cut(whole, size, draws));
    const degradation = drawDegradation(draws);
    await writeAtomic(clean, await encodePng(picture));
    await writeAtomic(degraded, await encodePng(await degrade(degrader, picture, degradation)));
    const { state: _, ...values } = degradation;
    await manifest.append({ id, person, kind, source: relative(out, face.path).replaceAll(sep, '/'), ...values });
    onDone?.(done + 1, wanted.length);
  }
  return inputs;
}

async function cut(picture: Rgb, size: number, draws: Draws): Promise<Rgb> {
  const left = draws.below(picture.width - size + 1);
  const top = draws.below(picture.height - size + 1);
  const square = sharpOf(picture).extract({ left, top, width: size, height: size });
  const data = await square
    .flop(draws.uniform() < 0.5)
    .raw()
    .toBuffer();
  return { width: size, height: size, data };
}

async function degrade(degrader: Degrader, picture: Rgb, degradation: Degradation): Promise<Rgb> {
  const { image } = await degrader.degrade(picture, degradation);
  return { ...picture, data: Uint8Array.from(image, (v) => v * 255 + 0.5) };
}
