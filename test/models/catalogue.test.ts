import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { findModelFiles, knownModels, type Role } from '../../lib/models/catalogue.ts';

const folder = mkdtempSync(join(tmpdir(), 'refl-catalogue-'));
test.after(() => rmSync(folder, { recursive: true }));

function put(...names: string[]): void {
  for (const name of names) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), '');
  }
}

async function failure(name: string, where = folder, spared: readonly Role[] = []): Promise<string> {
  try {
    await findModelFiles(name, where, spared);
  } catch (error) {
    return `${(error as { code: string }).code} ${(error as Error).message}`;
  }
  throw new Error('nothing was thrown');
}

test('names are unique, and every file says where it is published and under which licence', () => {
  assert.is(new Set(knownModels.map(({ name }) => name)).size, knownModels.length);
  for (const { name, files } of knownModels) {
    assert.is(new Set(files.map(({ role }) => role)).size, files.length, name);
    for (const { names, source, licence } of files) assert.ok(names.length && source && licence, name);
  }
});

test('what is missing is listed in one error, with where to get it', async () => {
  assert.match(await failure('diffbir-v9'), /^ERR_OPTION unknown model diffbir-v9: expected diffbir-v1, /);
  assert.match(await failure('diffbir-v1', join(folder, 'nowhere')), /^ERR_FILE cannot read the folder /);
  const none = await failure('diffbir-v1');
  assert.match(none, /^ERR_FILE .* lacks 4 files of diffbir-v1; put there:\n/);
  assert.is(none.split('\n').length, 5);
  assert.match(await failure('diffbir-v1', folder, ['tokenizer', 'base']), /lacks 2 files/);
  put('v1_face.pth', 'face_swinir_v1.ckpt', 'merges.txt');
  const one = await failure('diffbir-v1');
  assert.match(one, /lacks a file of diffbir-v1; put there:\n {2}Stable Diffusion 2\.1 base: v2-1_512-ema-pruned/);
  assert.match(one, /or a folder of diffusers, 5\.21 GB; published at .*sd2-community/);
});

test('files are found by their published names, the preferred and the nearest first', async () => {
  put('sd/model_index.json', 'sd/unet/config.json', 'sd/tokenizer/merges.txt', 'other/v1_face.pth', 'v1_general.pth');
  const inDiffusers = Object.fromEntries(await findModelFiles('diffbir-v1', folder));
  assert.equal(inDiffusers, {
    controlnet: join(folder, 'v1_face.pth'),
    stage1: join(folder, 'face_swinir_v1.ckpt'),
    base: join(folder, 'sd'),
    tokenizer: join(folder, 'merges.txt'),
  });
  put('v2-1_512-ema-pruned.ckpt', 'deep/er/osediff_face.pkl');
  const files = await findModelFiles('osediff-face', folder);
  assert.is(files.get('base'), join(folder, 'v2-1_512-ema-pruned.ckpt'));
  assert.is(files.get('adapters'), join(folder, 'deep/er/osediff_face.pkl'));
  assert.match(await failure('osediff'), /lacks a file of osediff; /);
});

test.run();
