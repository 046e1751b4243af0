// The test run itself: whatever goes wrong in a test file must count, or a green run would mean nothing.
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

const head = "import { test } from 'uvu';\nimport * as assert from 'uvu/assert';\n";
const files: Record<string, string> = {
  good: `${head}test('a', () => assert.ok(true));\ntest('b', () => assert.ok(true));\ntest.run();`,
  bad: `${head}test('a', () => assert.ok(true));\ntest('b', () => assert.is(1, 2));\ntest.run();`,
  skips: `${head}console.log('skipped: no weights here');\ntest.skip('a', () => {});\ntest.run();`,
  unsettled: `${head}test('a', () => new Promise(() => {}));\ntest.run();`,
  hangs: `// timeout: 2 s\n${head}test('a', () => new Promise(() => setInterval(() => {}, 50)));\ntest.run();`,
  unloadable: `import './nowhere.ts';\n${head}test('a', () => {});\ntest.run();`,
  forgotten: `${head}test('a', () => assert.ok(true));`,
  hook: `${head}test.before(() => { throw new Error('no'); });\ntest('a', () => {});\ntest('b', () => {});\ntest.run();`,
  aborts: `${head}test('a', () => process.abort());\ntest.run();`,
  late: `${head}test('a', () => { process.on('exit', () => process.abort()); });\ntest.run();`,
};
const folder = mkdtempSync(join(tmpdir(), 'refl-run-'));

test.before(() => {
  mkdirSync(join(folder, 'test'));
  symlinkSync(resolve('node_modules'), join(folder, 'node_modules'));
  writeFileSync(join(folder, 'package.json'), '{"type": "module"}');
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, 'test', `${name}.test.ts`), text);
});
test.after(() => rmSync(folder, { recursive: true }));

function run(...names: string[]) {
  const { status, stdout } = spawnSync(process.execPath, ['--import', 'tsx', resolve('test/run.ts'), ...names], {
    cwd: folder,
    encoding: 'utf8',
  });
  return { status, output: stdout, last: stdout.trimEnd().split('\n').at(-1) };
}

test('passing and failing tests are counted, and the failing one is shown', () => {
  const { status, output, last } = run('good', 'bad');
  assert.is(last, '3 passed, 1 failed');
  assert.is(status, 1);
  assert.match(output, /FAIL test\/bad\.test\.ts/);
  assert.match(output, /Expected values to be strictly equal/);
});

test('skipped tests are counted, say why, and do not fail the run', () => {
  const { status, output, last } = run('good', 'skips');
  assert.is(last, '2 passed, 0 failed, 1 skipped');
  assert.is(status, 0);
  assert.match(output, /skipped: no weights here/);
});

test('promises that never settle, with and without something that keeps the process alive, fail', () => {
  const { output, last } = run('unsettled', 'hangs');
  assert.is(last, '0 passed, 2 failed');
  assert.match(output, /before its tests were done/);
  assert.match(output, /stopped after 2 s/);
});

test('a file that does not load, and one that never runs its tests, fail', () => {
  assert.is(run('unloadable', 'forgotten').last, '0 passed, 2 failed');
});

test('tests that a throwing hook kept from running fail', () => {
  assert.is(run('hook').last, '0 passed, 2 failed');
});

test('a process that ends by a signal fails, also after its tests have passed', () => {
  assert.is(run('aborts').last, '0 passed, 1 failed');
  assert.is(run('late').last, '1 passed, 1 failed');
});

test('a filter that matches nothing fails', () => {
  const { status, last } = run('no such file');
  assert.is(last, '0 passed, 1 failed');
  assert.is(status, 1);
});

test.run();
