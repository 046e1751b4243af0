// timeout: 300 s
import { mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import sharp, { type Sharp } from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { picture, temporaryFolder, writeTinyModel } from '../restore/support.ts';
import { errorLines, refl } from './support.ts';

const test = suite('cli restore');
const folder = temporaryFolder();
const at = (...names: string[]): string => join(folder, ...names);
const model = at('tiny.safetensors');
await writeTinyModel(model);

/** Writes files into a new folder, and returns its path. */
async function folderOf(name: string, files: Record<string, Sharp | Buffer | string>): Promise<string> {
  await mkdir(at(name));
  for (const [file, content] of Object.entries(files)) {
    const bytes = typeof content === 'string' || Buffer.isBuffer(content) ? content : await content.toBuffer();
    await writeFile(at(name, file), bytes);
  }
  return at(name);
}

const aligned = (...args: string[]): string[] => [
  'restore',
  ...args,
  '--model',
  model,
  '--device',
  'cpu',
  '--threads',
  '1',
  '--aligned',
];

test('a folder of aligned crops becomes OUT/<stem>.png of the same size', async () => {
  const faces = await folderOf('faces', {
    'a.png': picture(32, 32).png(),
    'b.two.jpg': picture(48, 40).jpeg(),
    'c.webp': picture(20, 64).webp(),
    'readme.txt': 'left aside',
    '.hidden.png': 'left aside',
  });
  const out = at('deep', 'out');
  const outcome = await refl(aligned(faces, '-o', out, '--compare', '--batch', '2'));
  assert.equal([outcome.code, outcome.stderr], [0, '']);
  assert.is(outcome.stdout, ['a.png', 'b.two.png', 'c.png'].map((name) => `${join(out, name)}\n`).join(''));
  assert.equal((await readdir(out)).sort(), [
    'a.compare.png',
    'a.png',
    'b.two.compare.png',
    'b.two.png',
    'c.compare.png',
    'c.png',
  ]);
  const sizes = await Promise.all(
    ['a.png', 'b.two.png', 'c.png', 'c.compare.png'].map((name) => sharp(join(out, name)).metadata()),
  );
  assert.equal(
    sizes.map(({ width, height }) => [width, height]),
    [
      [32, 32],
      [48, 40],
      [20, 64],
      [40, 64],
    ],
  );
});

test('bad files of a batch get one line each, and the others are done', async () => {
  const png = await picture(40, 40).png().toBuffer();
  const frames = Buffer.concat([0, 100, 200].map((level) => Buffer.alloc(10 * 10 * 3, level)));
  const mixed = await folderOf('mixed', {
    'alpha.png': picture(30, 30, 4).png(),
    'animated.gif': sharp(frames, { raw: { width: 10, height: 30, channels: 3, pageHeight: 10 } }).gif(),
    'broken.jpg': (await picture(90, 90).jpeg().toBuffer()).subarray(0, 900),
    'cmyk.jpg': picture(30, 30).toColourspace('cmyk').jpeg(),
    'deep.png': picture(30, 30).toColourspace('rgb16').png(),
    'empty.png': '',
    'one.png': picture(1, 1).png(),
    'short.png': png.subarray(0, png.length - 300),
    'text.png': 'no image at all',
    'turned.jpg': picture(30, 20).withMetadata({ orientation: 8 }).jpeg(),
    'wide.png': picture(20_000, 4).png(),
  });
  await symlink('nowhere', at('mixed', 'dangling.png'));
  const out = at('mixed-out');
  const outcome = await refl(aligned(mixed, at('missing.png'), '-o', out, '--json'));
  assert.is(outcome.code, 1);
  const records = outcome.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  const failed = records.filter(({ error }) => error);
  assert.equal(failed.map(({ input, error }) => [input.slice(folder.length + 1), error.code]).sort(), [
    ['missing.png', 'ERR_FILE'],
    ['mixed/broken.jpg', 'ERR_IMAGE'],
    ['mixed/dangling.png', 'ERR_FILE'],
    ['mixed/empty.png', 'ERR_IMAGE'],
    ['mixed/short.png', 'ERR_IMAGE'],
    ['mixed/text.png', 'ERR_IMAGE'],
  ]);
  const good = ['alpha', 'animated', 'cmyk', 'deep', 'one', 'turned', 'wide'];
  assert.equal(
    (await readdir(out)).sort(),
    good.map((name) => `${name}.png`),
  );
  const wide = records.find(({ input }) => input.endsWith('wide.png'));
  assert.equal([wide.width, wide.height, wide.faces, wide.output], [20_000, 4, 1, join(out, 'wide.png')]);
  const turned = records.find(({ input }) => input.endsWith('turned.jpg'));
  assert.equal([turned.width, turned.height], [20, 30]);

  const lines = errorLines(outcome);
  assert.is(lines.filter((line) => failed.some(({ input }) => line.startsWith(`refl-native: ${input}: `))).length, 6);
  assert.is(lines.filter((line) => /animated\.gif: it has 3 frames/.test(line)).length, 1);
  assert.is(lines.length, 7);
});

test('inputs that share a stem keep their extension; a file named twice is done once', async () => {
  const twins = await folderOf('twins', {
    'x.png': picture(8, 8).png(),
    'x.jpg': picture(8, 8).jpeg(),
    'y.png': picture(8, 8).png(),
  });
  const outcome = await refl(aligned(twins, at('twins', 'y.png'), '-o', at('twins-out')));
  assert.is(outcome.code, 0, outcome.stderr);
  assert.equal((await readdir(at('twins-out'))).sort(), ['x.jpg.png', 'x.png.png', 'y.png']);
});

test('results that would overwrite each other or an input are refused before anything is done', async () => {
  const first = await folderOf('first', { 'same.png': picture(8, 8).png() });
  const second = await folderOf('second', { 'same.png': picture(8, 8).png() });
  const clash = await refl(aligned(first, second, '-o', at('clash')));
  assert.is(clash.code, 2);
  assert.match(errorLines(clash)[0], /first\/same\.png and .*second\/same\.png would both be written/);
  const before = await readFile(at('first', 'same.png'));
  const over = await refl(aligned(first, '-o', first));
  assert.is(over.code, 2);
  assert.match(errorLines(over)[0], /same\.png would be overwritten/);
  assert.ok(before.equals(await readFile(at('first', 'same.png'))));
  assert.equal(await readdir(first), ['same.png']);
});

test('a configuration file sets options, and flags override it', async () => {
  const config = at('config.json');
  await writeFile(config, JSON.stringify({ model, out: at('by-config'), aligned: true, threads: 1, json: true }));
  const image = at('faces', 'a.png');
  const plain = await refl(['restore', image, '--config', config]);
  assert.is(plain.code, 0, plain.stderr);
  assert.is(JSON.parse(plain.stdout).output, join(at('by-config'), 'a.png'));
  const overridden = await refl(['restore', image, '--config', config, '-o', at('by-flag'), '--no-json']);
  assert.is(overridden.stdout, `${join(at('by-flag'), 'a.png')}\n`);

  const bad: [string, RegExp][] = [
    ['{ "out": ', /configuration cannot be read/],
    ['[1]', /must be a JSON object/],
    ['{ "shade": 1 }', /Unknown argument: shade/],
  ];
  for (const [text, why] of bad) {
    await writeFile(config, text);
    const outcome = await refl(['restore', image, '-o', at('never'), '--config', config]);
    assert.is(outcome.code, 2, text);
    assert.match(errorLines(outcome)[0], why);
  }
});

test('wrong usage: exit code 2 and one line', async () => {
  const image = at('faces', 'a.png');
  const cases: [string[], RegExp][] = [
    [[], /command/],
    [['retouch'], /retouch/],
    [['restore'], /./],
    [['restore', image], /out/],
    [['restore', image, '-o', at('never'), '--sharpness', '3'], /sharpness/],
    [['restore', image, '-o', at('never'), '--threads', 'many', '--model', model], /threads/],
    [['restore', image, '-o', at('never'), '--batch', '0', '--model', model], /batch/],
    [['restore', image, '-o', at('never'), '--seed', 'x', '--model', model, '--aligned'], /seed must be/],
    [['restore', image, '-o', at('never'), '--model', 'face-9000'], /unknown model face-9000: expected face-256/],
    [['restore', image, '-o', at('never'), '--device', 'tpu', '--model', model], /unknown device tpu/],
    [['restore', image, '-o', at('never'), '--device', 'cuda:7', '--model', model], /cuda:7 is not usable/],
  ];
  const outcomes = [];
  for (const [args, why] of cases) {
    const outcome = await refl(args);
    outcomes.push(outcome.code);
    assert.is(outcome.code, 2, args.join(' '));
    assert.is(errorLines(outcome).length, 1);
    assert.match(outcome.stderr, why);
  }
});

test('a model that is corrupt or computes nonsense: exit code 1, one line, no picture', async () => {
  const image = at('faces', 'a.png');
  const bytes = await readFile(model);
  const short = at('short.safetensors');
  await writeFile(short, bytes.subarray(0, bytes.length - 100));
  const nan = at('nan.safetensors');
  await writeTinyModel(nan, { change: (_, values) => values.fill(Number.NaN) });
  const other = at('other.safetensors');
  await writeTinyModel(other, {
    without: [
      'context',
      'unet.out.0.weight',
      'unet.out.0.bias',
      'unet.out.2.weight',
      'unet.out.2.bias',
      'unet.time_embed.0.bias',
    ],
  });
  for (const [path, why] of [
    [short, /beyond the file/],
    [nan, /NaN or infinity/],
    [other, /missing: .*and 2 more/],
    [image, /no safetensors file/],
  ] as const) {
    const outcome = await refl(['restore', image, '-o', at('nothing'), '--aligned', '--model', path]);
    assert.is(outcome.code, 1, path);
    assert.is(errorLines(outcome).length, 1, outcome.stderr);
    assert.ok(outcome.stderr.startsWith(`refl-native: ${path}`), outcome.stderr);
    assert.match(outcome.stderr, why);
  }
  assert.equal(await readdir(at('nothing')), []);
});

test('a folder that cannot be written to: exit code 1, one line', async () => {
  const outcome = await refl(aligned(at('faces', 'a.png'), '-o', join(at('faces', 'a.png'), 'out')));
  assert.is(outcome.code, 1);
  assert.is(errorLines(outcome).length, 1);
  assert.match(outcome.stderr, /cannot make the folder: a part of its path is not a folder/);
  // Where the system takes no folders at all, Node's own recursive mkdir never returns.
  const nowhere = await refl(aligned(at('faces', 'a.png'), '-o', '/proc/refl/out'));
  assert.is(nowhere.code, 1);
  assert.match(errorLines(nowhere)[0], /\/proc\/refl\/out: cannot make the folder/);
});

test('Ctrl-C: exit code 130, every file that is there is whole, and no temporary file is left', async () => {
  const image = await picture(300, 300).png().toBuffer();
  const many = await folderOf('many', Object.fromEntries(Array.from({ length: 400 }, (_, i) => [`p${i}.png`, image])));
  const outcome = await refl(aligned(many, '-o', at('many-out')), (kill) => kill('SIGINT'));
  assert.is(outcome.code, 130);
  assert.is(outcome.stderr, '');
  const written = await readdir(at('many-out'));
  assert.ok(written.length >= 1 && written.length < 400, `${written.length} files`);
  for (const name of written) {
    assert.match(name, /^p\d+\.png$/);
    assert.is((await sharp(await readFile(at('many-out', name))).stats()).channels.length, 3);
  }
});

test.run();
