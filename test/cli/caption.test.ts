import { existsSync, readFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { picture, temporaryFolder } from '../restore/support.ts';
import { errorLines, refl } from './support.ts';

const test = suite('cli data caption');
const folder = temporaryFolder();
const pictures = join(folder, 'pictures');
await mkdir(pictures);
const names = Array.from({ length: 6 }, (_, i) => `${i}.png`);
for (const name of names) await picture(16, 12).png().toFile(join(pictures, name));

let requests = 0;
const server = createServer((request, response) => {
  request.resume().on('end', () => {
    const answer = { choices: [{ message: { content: `a face ${requests++}` } }] };
    const late = (): unknown => response.setHeader('content-type', 'application/json').end(JSON.stringify(answer));
    setTimeout(late, 50);
  });
});
await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
test.after(() => {
  server.close();
});
const endpoint = ['--endpoint', `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`, '--model', 'llava'];

const caption = (out: string, ...args: string[]) =>
  refl(['data', 'caption', pictures, '-o', join(folder, out), ...args]);
const linesOf = (out: string): { image: string; caption: string; source: string }[] =>
  readFileSync(join(folder, out), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));

test('without an endpoint all pictures get a caption that is recorded as no more than that', async () => {
  const outcome = await caption('sub/default.jsonl');
  assert.is(outcome.code, 0, outcome.stderr);
  assert.is(outcome.stdout, names.map((name) => `${join(pictures, name)}  a photo of a person's face\n`).join(''));
  const said = { caption: "a photo of a person's face", source: 'default' };
  assert.equal(
    linesOf('sub/default.jsonl'),
    names.map((name) => ({ image: `../pictures/${name}`, ...said })),
  );
});

test('a dry run tells what is left and does nothing', async () => {
  const before = requests;
  const outcome = await caption('dry.jsonl', ...endpoint, '--dry-run', '--prompt', 'Who?');
  assert.is(outcome.code, 0, outcome.stderr);
  assert.match(outcome.stdout, /^6 pictures, 0 of them described in .*dry\.jsonl already\n6 to send to llava at http/);
  assert.match(outcome.stdout, /with the prompt: Who\?\n$/);
  const json = await caption('dry.jsonl', '--dry-run', '--json', '--caption', 'a face');
  assert.equal(JSON.parse(json.stdout), { pictures: 6, left: 6, caption: 'a face' });
  assert.is(requests, before);
  assert.not.ok(existsSync(join(folder, 'dry.jsonl')));
});

for (const [signal, code] of [
  ['SIGKILL', null],
  ['SIGINT', 130],
] as const) {
  test(`${signal} in the middle loses nothing and doubles nothing`, async () => {
    const out = `${signal}.jsonl`;
    const ended = await refl(
      ['data', 'caption', pictures, '-o', join(folder, out), ...endpoint, '--concurrency', '2'],
      (kill) => kill(signal),
    );
    assert.is(ended.code, code, ended.stderr);
    const kept = linesOf(out);
    assert.ok(kept.length >= 1 && kept.length < names.length, `${kept.length}`);
    const rest = await caption(out, ...endpoint, '--json');
    assert.is(rest.code, 0, rest.stderr);
    const all = linesOf(out);
    assert.equal(all.slice(0, kept.length), kept);
    assert.equal(
      all.map(({ image }) => image).sort(),
      names.map((name) => `pictures/${name}`),
    );
    assert.is(rest.stdout.trim().split('\n').length, names.length - kept.length);
  });
}

test('an endpoint that is down is one line, and ends with 1', async () => {
  const outcome = await caption('down.jsonl', '--endpoint', 'http://127.0.0.1:9/v1', '--model', 'm', '--retries', '0');
  assert.is(outcome.code, 1);
  assert.is(errorLines(outcome).length, 1);
  assert.match(outcome.stderr, /http:\/\/127\.0\.0\.1:9\/v1: it cannot be reached .* is it running\?/);
});

test('wrong usage ends with 2 and one line', async () => {
  for (const [args, why] of [
    [['--endpoint', 'http://127.0.0.1:9/v1'], /model/],
    [['--endpoint', 'x', '--model', 'm'], /endpoint must be an http\(s\) address, got x/],
    [[...endpoint, '--caption', 'x'], /mutually exclusive/],
    [[...endpoint, '--concurrency', '0'], /concurrency must be a whole number of at least 1/],
    [[...endpoint, '--timeout', '-1'], /timeout must be at least/],
    [[...endpoint, '--key-variable', 'REFL_NO_SUCH'], /REFL_NO_SUCH holds no key/],
  ] as const) {
    const outcome = await caption('never.jsonl', ...args);
    assert.is(outcome.code, 2, outcome.stderr);
    assert.is(errorLines(outcome).length, 1, outcome.stderr);
    assert.match(outcome.stderr, why);
  }
  assert.not.ok(existsSync(join(folder, 'never.jsonl')));
});

test.run();
