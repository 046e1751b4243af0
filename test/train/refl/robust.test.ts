// timeout: 900 s
// What a run by rewards survives: kill -9 at any moment, full disks, gradients that are not finite, a second trainer.
// REFL_KILLS=20 kills a run that often instead of three times.
import { spawnSync } from 'node:child_process';
import { watch } from 'node:fs';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { FolderPairs, type PairSource } from '../../../lib/data/pairs.ts';
import { openDevice } from '../../../lib/runtime/index.ts';
import { type ReflEvents, type ReflOptions, type ReflStep, trainRefl } from '../../../lib/train/refl/refl.ts';
import { openSafetensors } from '../../../lib/weights/safetensors.ts';
import { picture, temporaryFolder } from '../../restore/support.ts';
import { errorOf } from '../../support/runtime.ts';
import { child, type Kill, killOften, sameRun, stepsFor } from '../killed.ts';
import { made, options, pairs } from './small.ts';

const test = suite('refl robust');
const folder = temporaryFolder();
const kills = Number(process.env.REFL_KILLS ?? 3);
const steps = stepsFor(kills);
const alive = join(folder, 'alive');

const run = (out: string, kill?: Kill, onStart?: (kill: () => void) => void): Promise<boolean> =>
  child('refl', ['diffbir', out, JSON.stringify({ steps })], kill, onStart);

test('a run killed at any moments goes on to the same bits', async () => {
  assert.ok(await run(alive));
  const out = join(folder, 'killed');
  await killOften(kills, (kill) => run(out, kill));
  await sameRun(out, alive);
});

test('one that is killed while it writes a state goes on from the one before, and tidies up', async () => {
  const out = join(folder, 'saving');
  await mkdir(out);
  const half = async (): Promise<string[]> => (await readdir(out)).filter((name) => /^\.step.*\.tmp$/.test(name));
  for (let tries = 0; !(await half()).length; tries++) {
    assert.ok(tries < 10, 'ten kills came after the file was whole');
    let seen = 0;
    await run(out, undefined, (kill) => {
      const watcher = watch(out, (_, name) => {
        // The first states of a process are small and quick; any later one will do.
        if (!name?.endsWith('.tmp') || ++seen < 3) return;
        kill();
        watcher.close();
      });
    });
  }
  assert.ok(await run(out));
  await sameRun(out, alive);
});

/** Trains the network in this process; resolves to what was told of its steps. */
async function train(
  out: string,
  changed: Partial<ReflOptions> = {},
  source: PairSource = pairs,
  events: ReflEvents = {},
): Promise<ReflStep[]> {
  using device = await openDevice('cpu', { threads: 1 });
  const { models, parameters } = await made(device, 'network');
  const told: ReflStep[] = [];
  const onStep = (step: ReflStep): void => void told.push(step);
  try {
    await trainRefl(device, parameters, source, models, { ...options, ...changed, out }, { ...events, onStep });
    return told;
  } finally {
    parameters.dispose();
  }
}

const states = async (out: string): Promise<string[]> =>
  (await readdir(out)).filter((name) => name.startsWith('step-')).sort();

test('a second trainer in one folder is refused', async () => {
  const out = join(folder, 'shared');
  let refusal: Promise<Error & { code?: string }> | undefined;
  const told = await train(out, {}, pairs, {
    onStart: () => {
      refusal = errorOf(() => train(out));
    },
  });
  const error = await refusal!;
  assert.is(error.code, 'ERR_FILE');
  assert.match(error.message, /is being written by process/);
  assert.is(told.length, 6);
});

/** Pairs that are no numbers in some steps. */
const broken = (isBroken: (step: number) => boolean): PairSource => ({
  size: pairs.size,
  async batch(step, count) {
    const images = await pairs.batch(step, count);
    return isBroken(step) ? { ...images, clean: images.clean.map(() => Number.NaN) } : images;
  },
});

test('steps without a finite gradient change nothing, are counted, and end a run that goes on so', async () => {
  const out = join(folder, 'skipping');
  const told = await train(
    out,
    { steps: 6, checkpointEvery: 1, lr: 0 },
    broken((step) => step === 2 || step === 4),
  );
  assert.equal(
    told.map(({ skipped }) => skipped),
    [0, 0, 1, 1, 2, 2],
  );
  assert.ok(told.every(({ step, norm }) => Number.isFinite(norm) === (step !== 3 && step !== 5)));

  const diverging = join(folder, 'diverging');
  const error = await errorOf(() =>
    train(
      diverging,
      { steps: 40, checkpointEvery: 1 },
      broken((step) => step >= 5),
    ),
  );
  assert.is(error.code, 'ERR_DIVERGED');
  assert.match(error.message, /10 steps in a row up to 15 had no finite gradient/);
  assert.equal(await states(diverging), ['step-00000004.safetensors', 'step-00000005.safetensors']);
  // The states from before go on where the fault is gone.
  assert.is((await train(diverging, { steps: 7, checkpointEvery: 1 }))[0].step, 6);
});

test('other options are refused with a list, and taken over where that is wanted', async () => {
  const out = join(folder, 'changed');
  await train(out, { steps: 2 });
  const change = { steps: 4, lr: 0.5, moving: { ...options.moving!, every: 1 } };
  const error = await errorOf(() => train(out, change));
  assert.is(error.code, 'ERR_CHECKPOINT');
  assert.match(error.message, /\(lr: 0\.01, now 0\.5; moving\.every: 2, now 1\): .* or override them/);
  const other = await errorOf(() => train(out, { steps: 4 }, { ...pairs, digest: 'others' }));
  assert.match(other.message, /pictures: none, now "others"/);

  const overridden: string[] = [];
  const events = { onStart: (start: { overridden: readonly string[] }) => overridden.push(...start.overridden) };
  const told = await train(out, { ...change, override: true }, pairs, events);
  assert.equal(overridden, ['lr: 0.01, now 0.5', 'moving.every: 2, now 1']);
  assert.equal(
    told.map(({ step, judge }) => [step, judge !== undefined]),
    [
      [3, true],
      [4, true],
    ],
  );
  // From here on these are its options; the judge learned once of the first two steps, and twice since.
  assert.equal(await train(out, change), []);
  const { metadata } = await openSafetensors(join(out, 'step-00000004.safetensors'));
  assert.is(JSON.parse(metadata.progress).course.judged, 3);
});

test('a judge that stood still may begin to learn', async () => {
  const out = join(folder, 'repaired');
  await train(out, { steps: 2, moving: undefined });
  const told = await train(out, { steps: 4, override: true });
  assert.equal(
    told.map(({ judge }) => judge !== undefined),
    [false, true],
  );
});

test('broken and small pictures are named before anything trains', async () => {
  const photographs = join(folder, 'photographs');
  await mkdir(photographs);
  const whole = await picture(40, 40).png().toBuffer();
  await writeFile(join(photographs, 'a.png'), whole);
  await writeFile(join(photographs, 'b.png'), whole.subarray(0, whole.length >> 1));
  await writeFile(join(photographs, 'c.jpg'), 'no picture');
  using device = await openDevice('cpu', { threads: 1 });
  const sources = [{ folder: photographs, weight: 1 }];
  const error = await errorOf(() => FolderPairs.open(device, sources, { size: 32, seed: 0 }));
  assert.is(error.code, 'ERR_IMAGE');
  assert.match(error.message, /b\.png: the image cannot be read.*; 1 more of 3 pictures cannot be used either/);
  const small = await errorOf(() => FolderPairs.open(device, sources, { size: 48, seed: 0 }));
  assert.match(small.message, /a\.png is 40x40: crops of 48 do not fit; 2 more of 3/);
});

/** Whether file systems can be mounted where nobody else sees them. */
const mounts = spawnSync('unshare', ['-m', 'mount', '-t', 'tmpfs', 'tmpfs', folder]).status === 0;
if (mounts) {
  test('a disk that is full costs what came since the last state', async () => {
    const file = fileURLToPath(new URL('../children/refl.ts', import.meta.url));
    const [disk, kept, whole] = ['disk', 'kept', 'undisturbed'].map((name) => join(folder, name));
    await mkdir(disk);
    const training = (steps: number): string =>
      `'${process.execPath}' --import tsx '${file}' network '${disk}/run' '{"steps":${steps}}' > '${folder}/told'`;
    // The last kilobytes of the disk stay free: events fit, a state does not.
    const script = `
      mount -t tmpfs -o size=4m tmpfs '${disk}' && ${training(2)} || exit 3
      head -c 8k /dev/zero > '${disk}/little'
      cat /dev/zero > '${disk}/much' 2> '${folder}/full'
      rm '${disk}/little'
      ${training(6)} && exit 4
      ls -A '${disk}/run'
      rm '${disk}/much'
      ${training(6)} && cp -r '${disk}/run' '${kept}'`;
    const { status, stdout, stderr } = spawnSync('unshare', ['-m', 'sh', '-c', script], { encoding: 'utf8' });
    assert.is(status, 0, stderr);
    assert.match(stderr, /cannot write .*step-00000004.*ENOSPC/);
    assert.not.match(stdout, /\.tmp|lock|step-00000004/);
    assert.match(stdout, /step-00000002/);
    await train(whole);
    await sameRun(kept, whole);
  });
}

test.run();
