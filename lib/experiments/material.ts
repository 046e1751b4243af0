import { createHash } from 'node:crypto';
import { join } from 'node:path';
import type { Source } from '../data/pairs.ts';
import { clearFaces } from '../demo/faces.ts';
import { makeInputs } from '../demo/inputs.ts';
import { type DemoJudge, trainDemoJudge } from '../demo/judge.ts';
import { demoSize, type FrmDemoSettings, frmDemo } from '../demo/settings.ts';
import { makeFolder, readBytes } from '../image/files.ts';
import { decodeImage } from '../image/picture.ts';
import { shippedReward } from '../reward/shipped.ts';
import { openDevice } from '../runtime/index.ts';
import type { StepImages } from '../train/refl/session.ts';

export interface MaterialSettings {
  /** Names of faces, or of whole photographs, whose people are looked at and never trained on, by anybody. */
  readonly heldOut: readonly string[];
  /** Degraded pictures of them, and side of all pictures in pixels. */
  readonly looks: number;
  readonly side: number;
  /** Morphs of the people to train on, beside their photographs. */
  readonly morphs: number;
  /** The independent judge: its `people` are others than those to train on and those held out. */
  readonly independent: FrmDemoSettings;
  readonly seed: number;
}

/**
 * What `demo refl` and the experiments work on. face-256 and frm-256 never saw the seven people of frm-256's model card who are
 * held out there: four of them make the independent judge, which leaves three to look at.
 */
export const reflMaterial: MaterialSettings = {
  ...{ heldOut: ['sample3_0', 'sample5_2', 'sample5_4'], looks: 12, side: demoSize, morphs: 40, seed: 3 },
  independent: {
    ...frmDemo,
    ...{ people: ['sample6'], morphs: 20, counts: { train: 120, morph: 80, heldout: 12 }, steps: 300, seed: 2 },
    // Restorers are to come nearer to photographs, so it has to know some.
    originals: true,
  },
};

/** Where things come from and go, and on what they are computed. */
export interface Workplace {
  /** Folder of the whole experiment. */
  readonly out: string;
  /** Photographs of people; those of the demonstration of @vladmandic/face-api. */
  readonly photographs: readonly string[];
  /** As openDevice takes it. */
  readonly device: string;
  readonly threads?: number;
  readonly signal?: AbortSignal;
  /** LPIPS's files, without which that loss and that distance are left out. */
  readonly lpips?: readonly string[];
}

/** A degraded picture of a person who is held out, and its original. */
export interface HeldPicture {
  readonly person: string;
  readonly degraded: string;
  readonly clean: string;
}

/** What all arms of an experiment share, in files. */
export interface Material {
  readonly side: number;
  readonly sources: readonly Source[];
  readonly held: readonly HeldPicture[];
  /** The judge that restorers train by, as it ships. */
  readonly judge: DemoJudge;
  /** One that nobody learns from. */
  readonly independent: DemoJudge;
  readonly lpips?: readonly string[];
  /** Tells judges and pictures to look at from others, for runs that go on; trainRefl knows what it trains on. */
  readonly key: string;
}

export interface MaterialEvents {
  readonly onProgress?: (stage: string, done: number, total: number) => void;
}

/**
 * Makes what arms work on: faces and morphs to train on, degraded pictures of people held out, an independent judge. Started
 * again, it goes on. Throws what its parts throw.
 */
export async function prepareMaterial(
  { heldOut, looks, side, morphs, independent, seed }: MaterialSettings,
  { out, photographs, device: kind, threads, signal, lpips }: Workplace,
  { onProgress = () => {} }: MaterialEvents = {},
): Promise<Material> {
  await makeFolder(out);
  const path = join(out, 'faces');
  const held = await (async () => {
    using device = await openDevice(kind, { threads });
    onProgress('faces', 0, 1);
    // The people of the independent judge are not trained on either.
    const others = [...heldOut, ...(independent.people ?? [])];
    const faces = await clearFaces(device, { out: path, photographs, heldOut: others, morphs, seed, signal });
    const names = new Set(heldOut);
    const looked = faces.filter(({ kind, person }) => kind === 'heldout' && names.has(person));
    const counts = { train: 0, morph: 0, heldout: looks };
    onProgress('pictures of people held out', 0, 1);
    return await makeInputs(device, looked, {
      ...{ out: join(out, 'heldout'), counts, size: side, seed, centred: true, signal },
      onDone: (done, total) => onProgress('pictures of people held out', done, total),
    });
  })();
  const judge = await trainDemoJudge(
    { ...independent, heldOut, photographs, out: join(out, 'independent'), device: kind, threads, signal },
    { onProgress: (stage, done, total) => onProgress(`independent judge: ${stage}`, done, total) },
  );
  const sources = ['train320', 'morphs'].map((folder) => ({ folder: join(path, folder), weight: 1 }));
  const files = [
    ...held.flatMap(({ clean, degraded }) => [clean, degraded]),
    ...[shippedReward.weights, judge.weights, ...(lpips ?? [])],
  ];
  const hash = createHash('sha256');
  for (const file of files) hash.update(await readBytes(file));
  return {
    ...{ side, held, judge: shippedReward, independent: judge, lpips },
    sources: morphs ? sources : sources.slice(0, 1),
    key: hash.digest('hex'),
  };
}

/** The pictures of people held out as a restorer takes them. */
export async function heldImages({ held, side }: Pick<Material, 'held' | 'side'>): Promise<StepImages> {
  const size = side * side * 3;
  const read = async (paths: readonly string[]): Promise<Float32Array> => {
    const all = new Float32Array(paths.length * size);
    for (const [i, path] of paths.entries()) {
      const { data } = await decodeImage(path);
      all.set(
        Float32Array.from(data, (v) => v / 255),
        i * size,
      );
    }
    return all;
  };
  const [degraded, clean] = [await read(held.map((one) => one.degraded)), await read(held.map((one) => one.clean))];
  return { degraded, clean };
}
