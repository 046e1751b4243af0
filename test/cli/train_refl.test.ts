// timeout: 600 s
// Restorers of every form trained by rewards from the command line, and used afterwards.
import { copyFile, mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import sharp from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { tinyDiffBIR } from '../restore/latent_support.ts';
import { diffbirFiles, osediffFiles, writeOfficial } from '../restore/official.ts';
import { picture, temporaryFolder, writeTinyModel } from '../restore/support.ts';
import { writeTinyClip, writeTokenizer } from '../reward/support.ts';
import { errorLines, refl } from './support.ts';

const test = suite('cli train refl');
const folder = temporaryFolder();
const [photographs, heldOut] = ['photographs', 'held-out'].map((name) => join(folder, name));
for (const at of [photographs, heldOut]) await mkdir(at);
await picture(96, 80).png().toFile(join(photographs, 'a.png'));
await picture(70, 90).png().toFile(join(heldOut, 'b.png'));
const tiny = join(folder, 'tiny.safetensors');
await writeTinyModel(tiny);
const judge = await writeTinyClip(join(folder, 'judge.safetensors'));
const tokenizer = writeTokenizer(folder);
const networks = join(folder, 'networks.json');
const captions = join(folder, 'captions.jsonl');
await writeFile(captions, '{"image": "photographs/a.png", "caption": "a b"}\n');
await writeFile(networks, JSON.stringify({ ...tinyDiffBIR, size: 32 }));

/** The first JSON object of every line. */
const records = (stdout: string) =>
  stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));

const common = ['--judge', judge, '--tokenizer', tokenizer, '--image-groups', '1', '--text-layers', '1'];
const short = ['--steps', '4', '--accumulate', '2', '--checkpoint-every', '2', '--threads', '1', '--device', 'cpu'];
const train = (out: string, args: string[], onOutput?: (kill: (signal: NodeJS.Signals) => void) => void) => {
  const others = [...common, ...short].filter((_, i, all) => !args.includes(all[i - (i % 2)]));
  return refl(['train', 'refl', photographs, ...others, '-o', join(folder, out), ...args], onOutput);
};

const source = join(folder, 'source.png');
await picture(32, 32).png().toFile(source);
async function restored(args: string[]): Promise<Buffer> {
  const out = join(folder, 'restored');
  const { code, stderr } = await refl(['restore', source, '--aligned', '-o', out, '--device', 'cpu', ...args]);
  assert.is(code, 0, stderr);
  return sharp(join(out, 'source.png')).raw().toBuffer();
}

test('a network: stopped, gone on, looked at, and restoring otherwise afterwards', async () => {
  const args = ['--model', tiny, '--lr', '0.02', '--held-out', heldOut, '--looks', '2', '--judge-every', '2'];
  const watched = [...args, '--independent', judge, '--validate-every', '2', '--aligned', '--json'];
  const first = await train('network', watched, (kill) => kill('SIGINT'));
  assert.is(first.code, 130, first.stderr);
  const second = await train('network', watched);
  assert.is(second.code, 0, second.stderr);
  assert.match(second.stderr, /million parameters train; .* going on from step \d\n/);
  assert.match(second.stderr, /without LPIPS's files its loss is left out/);
  const all = [...records(first.stdout), ...records(second.stdout)];
  const steps = all.filter(({ losses }) => losses);
  assert.equal(
    steps.map(({ step }) => step),
    [1, 2, 3, 4],
  );
  assert.ok(steps.every(({ losses, norms, memory }) => losses.reward > 0 && norms.wavelet > 0 && memory > 1e6));
  assert.equal(
    steps.map((step) => 'judge' in step),
    [false, true, false, true],
  );
  const looks = all.filter(({ observation }) => observation);
  assert.equal(
    looks.map(({ step }) => step),
    [0, 2, 4],
  );
  assert.ok(looks.every(({ observation }) => observation.independent > -1 && observation.distances.rmse > 0));
  // No face is there, and the networks look all the same.
  for (const { observation } of looks) {
    assert.equal(Object.keys(observation.distances), ['rmse', 'structure', 'perceptual', 'identity', 'landmarks']);
    assert.ok(Object.values(observation.distances as Record<string, number>).every((distance) => distance > 0));
  }
  const { restorer } = all.pop();
  assert.ok((await readdir(join(folder, 'network'))).some((name) => name.includes('tfevents')));
  const [before, after] = [await restored(['--model', tiny]), await restored(['--model', restorer])];
  assert.not.ok(before.equals(after));

  const other = await train('network', [...args, '--seed', '1']);
  assert.is(other.code, 1);
  assert.match(errorLines(other).join(), /was trained with/);

  // The judge's file has changed since.
  const changed = join(folder, 'judge.changed.safetensors');
  await writeTinyClip(changed, (_, values) => values.map((v) => 1.01 * v));
  const swapped = [...args, '--independent', judge, '--judge', changed, '--steps', '5'];
  const refused = await train('network', swapped);
  assert.is(refused.code, 1);
  assert.match(errorLines(refused).join(), /files\.judge: "\w{64}", now "\w{64}"\)/);
  const overridden = await train('network', [...swapped, '--override']);
  assert.is(overridden.code, 0, overridden.stderr);
  assert.match(overridden.stderr, /overridden: files\.judge/);
});

test('losses weigh what they are given, and one that weighs nothing is measured', async () => {
  const args = ['--model', tiny, '--steps', '1', '--json'];
  const weights = [
    '--reward-weight',
    '0.01',
    '--wavelet-weight',
    '0',
    '--features-weight',
    '0.03',
    '--drift-weight',
    '200',
  ];
  const [plain, weighed] = [await train('plain', args), await train('weighed', [...args, ...weights])];
  assert.is(weighed.code, 0, weighed.stderr);
  const [{ norms }, other] = [plain, weighed].map(({ stdout }) => records(stdout).find(({ losses }) => losses));
  assert.ok(Math.abs(other.norms.reward / norms.reward - 2) < 1e-5);
  assert.equal(Object.keys(other.norms).sort(), ['drift', 'features', 'reward']);
  assert.ok(other.norms.features > 0 && other.losses.wavelet > 0);
  assert.equal(Object.keys(norms).sort(), ['reward', 'wavelet']);
  const refused = await train('negative', [...args, '--lpips-weight', '-1']);
  assert.is(refused.code, 2);
  assert.match(errorLines(refused).join(), /weights must not be below 0, got -1/);
});

const forms = {
  'diffbir-v1': [diffbirFiles, 'diffbir_refl.safetensors', ['--rollout', '2', '--gradient-steps', '1']],
  'osediff-face': [
    osediffFiles,
    'osediff_refl.safetensors',
    ['--recompute', '--captions', captions, '--prompt-captions'],
  ],
} as const;
for (const [name, [files, trained, args]] of Object.entries(forms)) {
  test(`${name}: trained from official files, and restoring by what was trained when it lies beside them`, async () => {
    const weights = join(folder, name);
    await mkdir(weights);
    await writeOfficial(weights, files());
    await writeFile(join(weights, 'merges.txt'), '#version: 0.2\na b\n'); // one merge: 515 tokens
    const from = ['--model', name, '--weights', weights, '--networks', networks];
    const { code, stdout, stderr } = await train(`${name}-run`, [...from, ...args, '--lr', '0.02']);
    assert.is(code, 0, stderr);
    assert.match(stdout.trim(), new RegExp(`${trained.replace('.', '\\.')}$`));
    const more = name === 'diffbir-v1' ? ['--steps', '2'] : [];
    const half = ['--dtype', 'bf16', '--steps', '2'];
    const narrow = await train(`${name}-half`, [...from, ...args, ...half, '--held-out', heldOut, '--looks', '1']);
    assert.is(narrow.code, 0, narrow.stderr);
    const wide = await train(`${name}-half`, [...from, ...args, '--steps', '3']);
    assert.match(errorLines(wide).join(), /compute: "bf16", now none/);
    const before = await restored([...from, ...more]);
    await copyFile(stdout.trim(), join(weights, trained));
    assert.not.ok(before.equals(await restored([...from, ...more])));
  });
}

test('the plan of a published model needs no files', async () => {
  const plan = async (args: string[]) => records((await refl(['train', 'refl', '--plan', '--json', ...args])).stdout);
  const [full, half] = await plan(['--model', 'osediff-face', '--recompute']);
  assert.equal([full.compute, half.compute, half.trained], ['f32', 'bf16', 4_436_908]);
  assert.ok(half.state + half.programs < 16e9 && half.state < full.state);
  const { code, stdout } = await refl(['train', 'refl', '--plan', '--model', 'osediff-face', '--crop', '256']);
  assert.is(code, 0);
  assert.match(stdout, /^osediff-face at 256 x 256, batch 1, f32: [\d.]+ GB \([\d.]+ GB of weights/);
  const shipped = await refl(['train', 'refl', '--plan']);
  assert.is(shipped.code, 2);
  assert.match(errorLines(shipped).join(), /--plan knows diffbir-v1/);
});

test('wrong use is said in one line', async () => {
  const lines = async (args: string[]): Promise<string> => {
    const outcome = await train('wrong', args);
    assert.is.not(outcome.code, 0);
    return errorLines(outcome).join();
  };
  assert.match(await lines(['--model', tiny, '--crop', '30']), /multiples of 8 pixels, got 30/);
  assert.match(await lines(['--model', 'diffbir-v2.1', '--weights', folder]), /lacks .* of diffbir-v2\.1/);
  assert.match(await lines(['--model', 'diffbir-v1']), /weights/);
  assert.match(await lines(['--model', tiny, '--captions', captions, '--prompt-captions']), /reads no texts/);
  assert.match(await lines(['--model', tiny, '--aligned']), /--aligned says what --held-out names/);
  const nothing = await refl(['train', 'refl', photographs, ...common]);
  assert.match(errorLines(nothing).join(), /name folders of photographs, --judge, --tokenizer and --out/);
  assert.match(await lines(['--model', tiny, '--lr', '0']), /learning rates must be above 0/);
});

test.run();
