import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { openWeights } from '../../lib/weights/open.ts';
import { readTensor } from '../../lib/weights/read.ts';
import { errorLines, refl } from './support.ts';

const folder = mkdtempSync(join(tmpdir(), 'refl-weights-cli-'));
test.after(() => rmSync(folder, { recursive: true }));
const checkpoint = (name: string): string => fileURLToPath(new URL(`../weights/checkpoints/${name}`, import.meta.url));

test('inspect lists tensors and says what they are', async () => {
  const { code, stdout } = await refl(['inspect', checkpoint('osediff.pkl')]);
  assert.is(code, 0);
  assert.equal(stdout.trim().split('\n'), [
    'F32  state_dict_unet.conv_in.lora_A.default_encoder.weight [4, 2, 1, 1]',
    'F32  state_dict_vae.quant_conv.lora_A.weight [2]',
    '2 tensors, 10 parameters, 0.000 GB',
    "OSEDiff's adapters, under diffusers names",
  ]);
  const json = await refl(['inspect', checkpoint('zip.pth'), '--json']);
  const lines = json.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  assert.equal(lines[0], { name: 'f32', dtype: 'F32', shape: [2, 3] });
  assert.is(lines.at(-1).tensors, 16);
});

test('convert writes what inspect lists, and leaves nothing of a file that it refuses', async () => {
  const out = join(folder, 'out.safetensors');
  const done = await refl(['convert', checkpoint('stream.pth'), out]);
  assert.equal([done.code, done.stdout], [0, `${out}\n`]);
  const [from, to] = [await openWeights(checkpoint('stream.pth')), await openWeights(out)];
  assert.equal([...to.entries.keys()], [...from.entries.keys()]);
  assert.equal([...(await readTensor(to, 'transposed'))], [...(await readTensor(from, 'transposed'))]);
  const refused = await refl(['convert', checkpoint('system.pth'), join(folder, 'no.safetensors')]);
  assert.is(refused.code, 1);
  assert.match(errorLines(refused)[0], /"posix\.system"/);
  assert.equal(readdirSync(folder), ['out.safetensors']);
});

test('convert finds a wrong checksum, unless it is told not to look', async () => {
  const bytes = readFileSync(checkpoint('lightning.ckpt'));
  const file = await openWeights(checkpoint('lightning.ckpt'));
  bytes[file.entries.get('weight')!.pieces[0].offset + 3] ^= 1;
  const damaged = join(folder, 'damaged.ckpt');
  writeFileSync(damaged, bytes);
  const out = join(folder, 'damaged.safetensors');
  const refused = await refl(['convert', damaged, out]);
  assert.is(refused.code, 1);
  assert.match(errorLines(refused)[0], /data\/\d does not have the archive's checksum/);
  assert.is((await refl(['convert', damaged, out, '--no-verify', '--dtype', 'F16'])).code, 0);
  assert.equal([...(await readTensor(await openWeights(out), 'bias'))], [1]);
});

test('models says which files a model needs', async () => {
  const all = await refl(['models']);
  assert.is(all.code, 0);
  for (const name of ['face-256', 'diffbir-v1', 'osediff-face', 'face-reward']) assert.match(all.stdout, name);
  const one = await refl(['models', 'diffbir-v1', '--json']);
  const { files } = JSON.parse(one.stdout);
  assert.equal(
    files.map((file: { role: string }) => file.role),
    ['controlnet', 'stage1', 'base', 'tokenizer'],
  );
  const unknown = await refl(['models', 'diffbir']);
  assert.is(unknown.code, 2);
  assert.match(errorLines(unknown)[0], /unknown model diffbir: expected /);
});

test.run();
