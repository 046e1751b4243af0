// The layers of the design, held by reading every import: an arrow goes down only, so a lower layer never names a higher one.
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

/** Folders of lib/ from the lowest layer up; those in one row may import each other. */
const layers = [
  ['errors.ts', 'numbers.ts'],
  ['graph'],
  ['runtime'],
  ['weights', 'image', 'text'],
  ['nn'],
  ['models'],
  ['diffusion', 'reward', 'data', 'metrics', 'faces'],
  ['restore', 'train', 'eval', 'bench'],
  ['demo'],
  ['experiments'],
  ['index.ts'],
  ['cli', 'server'],
];

/** What a layer may not import although it lies above it: models are described without a device. */
const apart: Record<string, string[]> = { nn: ['runtime'], models: ['runtime'] };

/** What each native folder may include, besides the system's headers. */
const includes: Record<string, string[]> = {
  'native/exec': ['exec'],
  'native/cpu': ['cpu', 'exec'],
  'native/null': ['null', 'exec'],
  'native/addon': ['addon', 'exec', 'null', 'cpu'],
  cuda: [...readdirSync('cuda'), 'exec'],
};

function sources(folder: string, ending: RegExp): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => ending.test(name))
    .map((name) => join(folder, name));
}

/** The layer of a file of lib/, and its row. */
function layerOf(file: string): { name: string; row: number } {
  const name = relative('lib', file).split('/')[0];
  return { name, row: layers.findIndex((row) => row.includes(name)) };
}

/** Paths of the files that a TypeScript file imports by a relative path. */
function imports(file: string): string[] {
  const text = readFileSync(file, 'utf8');
  const found = text.matchAll(/(?:\bfrom\s*|\bimport\s*\(?\s*)'(\.[^']+)'/g);
  return [...found].map(([, path]) => join(dirname(file), path));
}

/** The layer rules that `file`, importing `paths`, breaks. */
function broken(file: string, paths: string[]): string[] {
  const from = layerOf(file);
  if (from.row < 0) return [`${file} lies in no layer: add its folder to this test and to the design`];
  return paths
    .map((path) => ({ path, to: layerOf(path) }))
    .filter(({ to }) => to.row > from.row || apart[from.name]?.includes(to.name))
    .map(({ path }) => `${file} imports ${path}`);
}

test('the scan sees what it must refuse', () => {
  assert.equal(broken('lib/graph/grad.ts', ['lib/graph/tensor.ts', 'lib/errors.ts']), []);
  assert.is(broken('lib/graph/grad.ts', ['lib/runtime/device.ts']).length, 1);
  assert.is(broken('lib/models/unet.ts', ['lib/runtime/device.ts']).length, 1);
  assert.is(broken('lib/weights/safetensors.ts', ['lib/models/unet.ts']).length, 1);
  assert.is(broken('lib/elsewhere/a.ts', []).length, 1);
  assert.ok(imports('lib/graph/grad.ts').includes('lib/graph/tensor.ts'));
});

test('lib: no layer imports a higher one', () => {
  const files = sources('lib', /\.ts$/);
  assert.ok(files.length > 30);
  assert.equal(
    files.flatMap((file) => broken(file, imports(file))),
    [],
  );
});

test('lib/graph never reaches the addon', () => {
  for (const file of sources('lib/graph', /\.ts$/)) assert.not.match(readFileSync(file, 'utf8'), /\.node['"`]/, file);
});

test('native: folders include only what lies below them, and napi.h stays in the addon', () => {
  const wrong: string[] = [];
  for (const file of [...sources('native', /\.(cc|h)$/), ...sources('cuda', /\.(cc|h|cu|cuh)$/)]) {
    const folder = Object.keys(includes).find((name) => file.startsWith(`${name}/`));
    if (!folder) wrong.push(`${file} lies in no layer`);
    for (const [, bracket, path] of readFileSync(file, 'utf8').matchAll(/^\s*#\s*include\s*([<"])([^>"]+)/gm)) {
      const home = path.includes('/') ? path.split('/')[0] : undefined;
      const fits = bracket === '<' ? !/^(napi|node_api|uv|v8)/.test(path) || folder === 'native/addon' : true;
      const below = bracket === '<' || !home || includes[folder ?? '']?.includes(home);
      if (!fits || !below) wrong.push(`${file} includes ${path}`);
    }
  }
  assert.equal(wrong, []);
});

test('no code file is longer than 500 lines', () => {
  const files = ['lib', 'native', 'cuda', 'test', 'bench', 'scripts'].flatMap((folder) =>
    sources(folder, /\.(ts|js|mjs|css|cc|h|cu|cuh)$/),
  );
  const long = files.filter((file) => readFileSync(file, 'utf8').split('\n').length > 501);
  assert.equal(long, []);
});

test.run();
