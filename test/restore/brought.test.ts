// timeout: 600 s
// Models whose files their users bring, from official names and keys to pictures. Weights are random and networks small: every
// tensor of every file has its part in the result.
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import sharp from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type RestoreOptions, Restorer } from '../../lib/index.ts';
import { openSafetensors } from '../../lib/weights/safetensors.ts';
import type { Source } from '../../lib/weights/write.ts';
import { refl } from '../cli/support.ts';
import { random } from '../support/random.ts';
import { tinyDiffBIR } from './latent_support.ts';
import { diffbirFiles, osediffFiles, writeOfficial } from './official.ts';
import { distance, failure, picture, temporaryFolder } from './support.ts';

const test = suite('brought models');
const folder = temporaryFolder();
const networks = join(folder, 'networks.json');
writeFileSync(networks, JSON.stringify({ ...tinyDiffBIR, size: 16 }));
/** A random autoencoder gives large latents: these are as small as the noise that a single step predicts. */
const shrunk = join(folder, 'shrunk.json');
writeFileSync(shrunk, JSON.stringify({ ...tinyDiffBIR, scale: 0.03, size: 16 }));
/** A vocabulary of all bytes, one merge and the two borders: 515 tokens, as the text encoder has rows. */
const merges = '#version: 0.2\na b\n';

const folders = { 'diffbir-v1': join(folder, 'diffbir'), 'osediff-face': join(folder, 'osediff') };
type Name = keyof typeof folders;
const filesOf = { 'diffbir-v1': diffbirFiles, 'osediff-face': osediffFiles };
for (const [name, path] of Object.entries(folders)) {
  mkdirSync(path);
  writeFileSync(join(path, 'merges.txt'), merges);
  await writeOfficial(path, filesOf[name as Name]());
}

const source = await picture(16, 16).png().toBuffer();
const options: Record<Name, RestoreOptions> = {
  'diffbir-v1': { aligned: true, steps: 2, sampler: 'ddim' },
  'osediff-face': { aligned: true },
};

async function pixelsOf(name: Name, weights = folders[name], more: RestoreOptions = {}): Promise<Buffer> {
  const sized = name === 'osediff-face' ? shrunk : networks;
  using restorer = await Restorer.load({ model: name, weights, networks: sized, device: 'cpu', threads: 1 });
  const { image } = await restorer.restore(source, { ...options[name], ...more });
  return sharp(image).raw().toBuffer();
}

/** A softmax over keys does not see what all of them have in common, nor the wavelet fix a colour that all pixels share. */
const unseen: Record<Name, RegExp> = {
  'diffbir-v1': /(^|\.)(attn_1\.k|decoder\.conv_out)\.bias$/,
  'osediff-face': /(^|\.)attn_1\.k\.bias$/,
};
/** Read by CLIP's own scores and not by diffusion; and a table that is no network's. */
const unread = /cond_stage_model\.model\.(transformer\.resblocks\.1\.|text_projection|logit_scale)|^alphas_cumprod$/;

/** Other values of the same size. */
function changed(values: Float32Array): Float32Array {
  const { next } = random(values.length);
  const size = Math.max(...values.map(Math.abs));
  return values.map(() => size * (2 * next() - 1));
}

/** Calls `fn` for each float32 tensor of a file with what writes other values of it in the file. */
async function eachTensor(
  path: string,
  tensors: ReadonlyMap<string, Source>,
  fn: (key: string, write: (values: Float32Array) => Promise<void>, own: Float32Array) => Promise<void>,
): Promise<void> {
  const { entries } = await openSafetensors(path);
  const file = await open(path, 'r+');
  for (const [key, { data }] of tensors) {
    const [{ offset }] = entries.get(key)!.pieces;
    const write = async (values: Float32Array): Promise<void> => {
      await file.write(values, 0, values.byteLength, offset);
    };
    await fn(key, write, data() as Float32Array);
  }
  await file.close();
}

for (const name of Object.keys(folders) as Name[]) {
  test(`${name}: the picture changes when any one tensor that is read does, and with no other`, async () => {
    const before = await pixelsOf(name);
    assert.ok(distance(before, await sharp(source).raw().toBuffer()) > 20, 'it changes pictures');
    assert.ok(before.equals(await pixelsOf(name)), 'and repeats itself');
    const wrong: string[] = [];
    let count = 0;
    for (const [file, { tensors }] of filesOf[name]()) {
      await eachTensor(join(folders[name], file), tensors, async (key, write, own) => {
        // OSEDiff's file replaces the first convolution of the base.
        const replaced = name === 'osediff-face' && key.startsWith('model.diffusion_model.input_blocks.0.0.');
        const same = unseen[name].test(key) || unread.test(key) || replaced;
        await write(changed(own));
        if (before.equals(await pixelsOf(name)) !== same) wrong.push(`${file}: ${key}`);
        await write(own);
        count++;
      });
    }
    assert.equal(wrong, []);
    assert.ok(count > 300, `${count} tensors`);
  });
}

test('prompts, guidance and fidelity work from files', async () => {
  for (const name of Object.keys(folders) as Name[]) {
    const plain = await pixelsOf(name);
    assert.not.ok(plain.equals(await pixelsOf(name, undefined, { prompt: 'ab b' })), 'prompt');
    assert.not.ok(plain.equals(await pixelsOf(name, undefined, { fidelity: 0.5 })), 'fidelity');
    const [one, other] = [{ prompts: ['a'] }, { prompts: ['ab'] }];
    assert.not.ok((await pixelsOf(name, undefined, one)).equals(await pixelsOf(name, undefined, other)), 'prompts');
  }
  const guided = await pixelsOf('diffbir-v1', undefined, { guidance: 3, negativePrompt: 'b' });
  assert.not.ok(guided.equals(await pixelsOf('diffbir-v1', undefined, { guidance: 3, negativePrompt: 'a' })));
  using restorer = await Restorer.load({ model: 'osediff-face', weights: folders['osediff-face'], networks });
  const { figures } = await restorer.restore(source, { aligned: true, prompt: 'a b a b a b' });
  assert.equal(figures.notes, ['the prompt is too long for the model: its end was left out']);
});

test('the command line restores by every version of DiffBIR from a folder', async () => {
  const [all, out] = [join(folder, 'all'), join(folder, 'out')];
  mkdirSync(all);
  writeFileSync(join(all, 'merges.txt'), merges);
  writeFileSync(join(folder, 'face.png'), source);
  writeFileSync(join(folder, 'prompts.jsonl'), `${JSON.stringify({ image: 'face.png', caption: 'a b' })}\n`);
  const names = new Map([
    ['v2-1_512-ema-pruned.ckpt', ['v2-1_512-ema-pruned.ckpt', 'sd2.1-base-zsnr-laionaes5.ckpt']],
    ['v1_face.pth', ['v1_face.pth', 'v2.pth', 'DiffBIR_v2.1.pt']],
    ['face_swinir_v1.ckpt', ['face_swinir_v1.ckpt']],
  ]);
  for (const [name, file] of diffbirFiles()) {
    await writeOfficial(all, new Map(names.get(name)!.map((other) => [other, file])));
  }
  const pictures = new Set<string>();
  for (const version of ['diffbir-v1', 'diffbir-v2', 'diffbir-v2.1']) {
    const common = ['restore', join(folder, 'face.png'), '-o', out, '--aligned', '--model', version, '--weights', all];
    const settings = [
      '--networks',
      networks,
      '--steps',
      '2',
      '--prompts',
      join(folder, 'prompts.jsonl'),
      '--memory',
      '1',
    ];
    const outcome = await refl([...common, ...settings]);
    assert.equal([outcome.code, outcome.stderr], [0, ''], version);
    pictures.add(readFileSync(join(out, 'face.png')).toString('base64'));
  }
  assert.is(pictures.size, 3, 'guidance, prediction and schedule tell them apart');
  const wrong = await refl(['restore', join(folder, 'face.png'), '-o', out, '--steps', '3']);
  assert.is(wrong.code, 2);
  assert.match(wrong.stderr, /has no use for steps/);
});

test('adapters may be folded into the weights', async () => {
  const weights = folders['osediff-face'];
  const restore = async (fold: boolean): Promise<Buffer> => {
    using restorer = await Restorer.load({ model: 'osediff-face', weights, networks: shrunk, fold, device: 'cpu' });
    return sharp((await restorer.restore(source, { aligned: true })).image)
      .raw()
      .toBuffer();
  };
  assert.ok(distance(await restore(true), await restore(false)) <= 2);
});

test('a text encoder may lack what diffusion does not read', async () => {
  const files = osediffFiles();
  const shorter = join(folder, 'shorter');
  mkdirSync(shorter);
  for (const [name, { tensors, metadata }] of files) {
    const read = new Map([...tensors].filter(([key]) => !unread.test(key)));
    await writeOfficial(shorter, new Map([[name, { tensors: read, metadata }]]));
  }
  assert.ok((await pixelsOf('osediff-face')).equals(await pixelsOf('osediff-face', shorter)));
});

test('the faces of a photograph and what lies around them', async () => {
  const group = createRequire(import.meta.url).resolve('@vladmandic/face-api/demo/sample5.jpg');
  const photograph = await sharp(group).resize(400).png().toBuffer();
  const { width, height } = await sharp(photograph).metadata();
  using restorer = await Restorer.load({
    model: 'osediff-face',
    weights: folders['osediff-face'],
    networks: shrunk,
    batch: 3,
  });
  const around = await restorer.restore(photograph, { tile: true });
  const faces = await restorer.restore(photograph);
  for (const { image, figures } of [around, faces]) {
    assert.is(figures.faces, 5);
    const { info } = await sharp(image).raw().toBuffer({ resolveWithObject: true });
    assert.equal([info.width, info.height], [width, height]);
  }
  const pixels = async (image: Uint8Array): Promise<Buffer> =>
    sharp(image).extract({ left: 0, top: 0, width: 40, height: 20 }).raw().toBuffer();
  const corner = await pixels(photograph);
  assert.ok(distance(await pixels(faces.image), corner) === 0 && distance(await pixels(around.image), corner) > 0);
});

test('a picture of any size is restored as a whole, one that is small enlarged first', async () => {
  using restorer = await Restorer.load({ model: 'osediff-face', weights: folders['osediff-face'], networks });
  for (const [width, height] of [
    [40, 23],
    [9, 20],
  ]) {
    const { image, figures } = await restorer.restore(picture(width, height), { aligned: true, tile: true });
    const { info } = await sharp(image).raw().toBuffer({ resolveWithObject: true });
    assert.equal([info.width, info.height, figures.faces], [width, height, 1]);
  }
});

const torch = (() => {
  try {
    execFileSync('/usr/bin/python3', ['-c', 'import torch'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
})();

(torch ? test : test.skip)("PyTorch's own files give the same pictures", async () => {
  const script = fileURLToPath(new URL('official.py', import.meta.url));
  for (const name of Object.keys(folders) as Name[]) {
    const converted = join(folder, `${name}-torch`);
    mkdirSync(converted);
    execFileSync('/usr/bin/python3', [script, folders[name], converted]);
    assert.ok((await pixelsOf(name)).equals(await pixelsOf(name, converted)), name);
  }
});

test('what is missing or does not fit is one error that says so', async () => {
  const load = (more: object) =>
    Restorer.load({ model: 'diffbir-v1', weights: folders['diffbir-v1'], networks, ...more });
  const refused = async (more: object, code: string, why: RegExp): Promise<void> => {
    const error = await failure(load(more));
    assert.is(error.code, code, error.message);
    assert.match(error.message, why);
  };
  await refused({ weights: undefined }, 'ERR_OPTION', /diffbir-v1 does not come with this package: name the folder/);
  await refused({ model: 'diffbir-v2' }, 'ERR_FILE', /lacks a file of diffbir-v2; put there/);
  await refused({ networks: undefined }, 'ERR_WEIGHTS', /v2-1_512-ema-pruned\.ckpt does not fit the model/);
  await refused({ fold: true }, 'ERR_OPTION', /diffbir-v1 has no use for fold/);
  await refused({ memory: -1 }, 'ERR_OPTION', /memory must be a number of gigabytes/);
  await refused({ model: 'face-256', networks: undefined }, 'ERR_OPTION', /face-256 has no use for weights/);
  await refused({ networks: join(folders['diffbir-v1'], 'merges.txt') }, 'ERR_OPTION', /describes no networks/);
  await refused({ networks: join(folder, 'none.json') }, 'ERR_FILE', /none\.json/);
  await refused({ tokenizer: networks }, 'ERR_FILE', /networks\.json/);
  const other = join(folder, 'other.json');
  for (const config of [{}, null, { ...tinyDiffBIR, size: 15 }, { ...tinyDiffBIR, size: 1e9 }]) {
    writeFileSync(other, JSON.stringify(config));
    await refused({ networks: other }, 'ERR_OPTION', /other\.json describes no networks/);
  }
  using restorer = await load({});
  const error = await failure(restorer.restore(source, { aligned: true, steps: 1001 }));
  assert.is(error.code, 'ERR_OPTION');
});

test.run();
