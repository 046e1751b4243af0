// Lists that stand in two places, held together: source files and sources.json, operators and their kernels.
import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { opTable } from '../../lib/graph/table.ts';
import { ruleOf } from '../../lib/graph/tensor.ts';
import { native } from '../../lib/runtime/native.ts';

const json = (path: string) => JSON.parse(readFileSync(path, 'utf8'));
const sources = json('sources.json');

test('sources.json lists every native source file', () => {
  const lists = ['core', 'addon', 'environment', 'null', 'cpu', 'cuda', 'backend', 'binders', 'kernels'];
  const listed = [...new Set(lists.flatMap((key): string[] => sources[key]))]; // node.cc is also the CUDA library's
  const present = ['native', 'cuda'].flatMap((folder) =>
    readdirSync(folder, { recursive: true, encoding: 'utf8' })
      .filter((name) => /\.(cc|cu)$/.test(name))
      .map((name) => join(folder, name)),
  );
  assert.equal(listed.sort(), present.sort());
});

test('package.json ships every file that a build from the package needs, and the pages that are served', () => {
  const { files } = json('package.json');
  for (const name of [
    'lib',
    'native',
    'cuda',
    'scripts',
    'ops.json',
    'sources.json',
    'binding.gyp',
    'CMakeLists.txt',
  ]) {
    assert.ok(files.includes(name), name);
  }
});

const operators = Object.entries(opTable).filter(([, row]) => row.family !== 'leaf');

test('every operator has its shape rule', async () => {
  for (const name of readdirSync('lib/graph/ops')) await import(pathToFileURL(resolve('lib/graph/ops', name)).href);
  for (const [name] of operators) assert.ok(ruleOf(name), `${name} has no rule under lib/graph/ops`);
});

test('every operator has a CPU kernel in a file of its family', () => {
  for (const [name, { family }] of operators) {
    const binder = new RegExp(`\\bbind${name[0].toUpperCase()}${name.slice(1)}\\b`);
    const files = readdirSync('native/cpu').filter((file) => file.startsWith(family));
    const found = files.some((file) => binder.test(readFileSync(join('native/cpu', file), 'utf8')));
    assert.ok(found, `no native/cpu/${family}*.cc has ${binder.source}`);
  }
  // The addon's table names every binder, so it loads only when all of them are defined.
  assert.ok(native().info().isa);
});

test.run();
