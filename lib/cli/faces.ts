import { readdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { CommandModule } from 'yargs';
import { writeFaceDataset } from '../data/dataset.ts';
import { FaceGatherer, type GatheredFace } from '../data/faces.ts';
import { ReflError } from '../errors.ts';
import { openDevice } from '../runtime/index.ts';
import { UsageError } from './failure.ts';
import { prepare } from './inputs.ts';
import { interrupted } from './interrupt.ts';
import { deviceOptions, type FileArgs, fileOptions, inputs, number } from './options.ts';
import { Progress } from './progress.ts';

interface Args extends FileArgs {
  size: number;
  enlarge: number;
  heldout: string[];
  share: number;
  morphs: number;
  seed: number;
}

export const facesCommand: CommandModule<object, Args> = {
  command: 'faces <inputs..>',
  describe: 'make a data set of aligned faces from photographs, split by person into training and held-out ones',
  builder: (yargs) =>
    yargs.positional('inputs', inputs).options({
      out: { ...fileOptions.out, describe: 'new folder for the data set: train, heldout, manifest.json' },
      size: number('side of the crops, in pixels; a second set shows a quarter more', 256),
      enlarge: number('leave out faces that would have to be enlarged by more than this', 2),
      heldout: {
        describe: 'faces (sample1_0) or photographs (sample1, sample*) whose people are held out',
        type: 'string',
        array: true,
        requiresArg: true,
        default: [],
      },
      share: number('part of the people to hold out; beyond those of --heldout they are drawn', 0.2),
      morphs: number('faces to make between those for training', 0),
      seed: number('of who is held out and of morphs', 0),
      ...deviceOptions,
      json: { describe: 'print the figures as a JSON object', type: 'boolean', default: false },
    }),
  handler: faces,
};

async function faces({ inputs, out, json, device: name, threads, enlarge, size, ...options }: Args): Promise<void> {
  const { heldout: heldOut, share, morphs, seed } = options;
  if (!(Number.isInteger(size) && size >= 32 && size <= 2048 && size % 8 === 0))
    throw new ReflError('ERR_OPTION', `size must be a multiple of 8 from 32 to 2048, got ${size}`);
  if (!(enlarge > 0)) throw new ReflError('ERR_OPTION', `enlarge must be above 0, got ${enlarge}`);
  if (!(share >= 0 && share <= 1)) throw new ReflError('ERR_OPTION', `share must be from 0 to 1, got ${share}`);
  if (!(Number.isSafeInteger(morphs) && morphs >= 0))
    throw new ReflError('ERR_OPTION', `morphs must be a whole number, got ${morphs}`);
  if (!Number.isSafeInteger(seed)) throw new ReflError('ERR_OPTION', `seed must be a whole number, got ${seed}`);

  const { files, names, report } = await prepare(inputs, out, json, ['']);
  // What an earlier run held out must not lie among what this one trains on.
  if ((await readdir(out)).length) throw new UsageError(`${out}: there are files in this folder: give a new one`);
  if (!files.length) return;
  using device = await openDevice(name, { threads });
  const crop = { size, margin: size / 8 };
  const found: GatheredFace[] = [];
  using gatherer = await FaceGatherer.load(device, crop);
  for (const [i, path] of files.entries()) {
    interrupted.throwIfAborted();
    report.progress.update(i, basename(path));
    try {
      const { faces, notes } = await gatherer.gather({ name: basename(names.get(path)!), path });
      const kept = faces.filter(({ scale }) => scale <= enlarge);
      found.push(...kept);
      for (const note of notes) report.note(path, note);
      if (!faces.length) report.note(path, 'no face was found');
      else if (kept.length < faces.length)
        report.note(path, `${faces.length - kept.length} of ${faces.length} faces are too small: see --enlarge`);
    } catch (error) {
      report.fail(path, error);
    }
  }
  report.progress.clear();
  if (!found.length) throw new ReflError('ERR_IMAGE', 'no photograph shows a face: no data set was written');

  const progress = new Progress(morphs, 'morphs');
  const { nearest, ...summary } = await writeFaceDataset(device, found, {
    ...{ out, crop, heldOut, share, morphs, seed, signal: interrupted },
    onMorph: (done) => progress.update(done),
  });
  progress.clear();
  const output = join(out, 'manifest.json');
  if (json) return console.log(JSON.stringify({ output, ...summary, nearest }));
  const { persons, train, heldout } = summary;
  const apart = nearest && `; ${nearest.train} and ${nearest.heldout} are nearest, at ${nearest.distance.toFixed(2)}`;
  report.progress.log(
    `refl-native: ${found.length} faces of ${persons} people: ${train} to train on, ${heldout} held out${apart ?? ''}`,
  );
  console.log(output);
}
