import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { clock, Progress } from '../../lib/cli/progress.ts';
import { refl } from './support.ts';

const test = suite('cli');

test('doctor says what was found, and why CUDA is not used', async () => {
  const { stdout, stderr } = await refl(['doctor', '--json']);
  assert.is(stderr, '');
  const findings = new Map(
    stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line))
      .map((finding) => [finding.what, finding]),
  );
  assert.is(findings.get('node').found.split(' ')[0], process.version);
  assert.ok(findings.get('addon').ok, findings.get('addon').found);
  assert.ok(findings.get('cpu').ok);
  assert.match(findings.get('cuda').found, /not usable: \S/);
});

test('doctor and restore give the same reason against CUDA; only a library that does not open is a fault', async () => {
  const out = mkdtempSync(join(tmpdir(), 'refl-doctor-'));
  try {
    for (const [path, ok] of [
      ['/nowhere/librefl_cuda.so', true],
      ['package.json', false],
    ] as const) {
      process.env.REFL_CUDA_LIB = path;
      const { code, stdout } = await refl(['doctor', '--json']);
      const finding = JSON.parse(stdout.split('\n').find((line) => line.includes('"cuda"'))!);
      assert.is(finding.ok, ok);
      assert.is(code, ok ? 0 : 1);
      const refused = await refl(['restore', 'samples', '-o', out, '--device', 'cuda:0']);
      assert.is(refused.code, 2);
      const reason = finding.found.replace('not usable: ', '');
      assert.is(refused.stderr, `refl-native: the device cuda:0 is not usable: ${reason}; use cpu\n`);
    }
  } finally {
    rmSync(out, { recursive: true });
    delete process.env.REFL_CUDA_LIB;
  }
});

test('--version and --help answer and succeed', async () => {
  const version = await refl(['--version']);
  assert.equal([version.code, version.stderr], [0, '']);
  assert.match(version.stdout, /^\d+\.\d+\.\d+\n$/);
  const help = await refl(['restore', '--help']);
  assert.is(help.code, 0);
  for (const flag of [
    '--out',
    '--aligned',
    '--model',
    '--device',
    '--threads',
    '--batch',
    '--compare',
    '--json',
    '--config',
  ]) {
    assert.match(help.stdout, new RegExp(flag));
  }
  for (const command of ['train base', 'train frm', 'train refl', 'data candidates']) {
    const { stdout } = await refl([...command.split(' '), '--help']);
    assert.match(stdout, /--[a-z]+-[a-z]+ /);
    assert.not.match(stdout, /--[a-z]+[A-Z]/, 'options are told as they are typed');
  }
});

test('a time left is readable', () => {
  assert.equal([0, 9.6, 65, 3599, 3661].map(clock), ['0:00', '0:10', '1:05', '59:59', '1:01:01']);
});

test('no progress is drawn where there is no terminal', () => {
  const { write } = process.stderr;
  let drawn = '';
  process.stderr.write = (text: string) => {
    drawn += text;
    return true;
  };
  try {
    new Progress(3, 'pictures').update(1);
  } finally {
    process.stderr.write = write;
  }
  assert.is(drawn, '');
});

test.run();
