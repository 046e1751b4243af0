import { readFileSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import sharp from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Annotations } from '../../lib/data/annotations.ts';
import { annotateApp, type State } from '../../lib/server/annotate.ts';
import { Listening } from '../../lib/server/listen.ts';
import { picture, temporaryFolder } from '../restore/support.ts';
import { codeOf } from '../support/runtime.ts';
import { comparisonsIn, writePairs } from './pairs.ts';

const test = suite('server annotate');
const folder = temporaryFolder();
const comparisons = await comparisonsIn(await writePairs(folder, 3));

let files = 0;
interface Served extends AsyncDisposable {
  readonly url: string;
  readonly out: string;
  /** Sends JSON, and returns the status and what comes back. */
  post(
    path: string,
    body: unknown,
    headers?: Record<string, string>,
  ): Promise<{ status: number; body: State & { readonly error: { readonly message: string } } }>;
  state(annotator: string): Promise<State>;
}

async function serve(pairs = comparisons, token?: string): Promise<Served> {
  const out = join(folder, `choices-${files++}.jsonl`);
  const annotations = await Annotations.open(pairs, { out });
  const server = await Listening.start(annotateApp(annotations, token), '127.0.0.1', 0);
  const url = `http://127.0.0.1:${server.port}`;
  return {
    url,
    out,
    post: async (path, body, headers = {}) => {
      const text = typeof body === 'string' ? body : JSON.stringify(body);
      const init = { method: 'POST', body: text, headers: { 'content-type': 'application/json', ...headers } };
      const response = await fetch(url + path, init);
      return {
        status: response.status,
        body: JSON.parse(await response.text().then((t) => (t.startsWith('{') ? t : '{}'))),
      };
    },
    state: async (annotator) =>
      (await fetch(`${url}/api/state?annotator=${encodeURIComponent(annotator)}`)).json() as Promise<State>,
    [Symbol.asyncDispose]: async () => {
      await server.close();
      await annotations.close();
    },
  };
}

const lineCount = (path: string): number => readFileSync(path, 'utf8').split('\n').length - 1;

/** A GET with headers that fetch would not let pass. */
function get(url: string, headers: Record<string, string>): Promise<number> {
  return new Promise((done, fail) => {
    request(url, { headers }, (response) => done(response.resume().statusCode!))
      .on('error', fail)
      .end();
  });
}

test('the page and its parts are there, allow nothing from elsewhere, and name nothing else', async () => {
  await using served = await serve();
  const policy = "default-src 'none'; script-src 'self'; style-src 'self'";
  for (const [path, type] of [
    ['/', 'text/html'],
    ['/style.css', 'text/css'],
    ['/annotate.js', 'text/javascript'],
    ['/zoom.js', 'text/javascript'],
  ]) {
    const response = await fetch(served.url + path);
    assert.is(response.status, 200);
    assert.ok(response.headers.get('content-type')!.startsWith(type));
    assert.ok(response.headers.get('content-security-policy')!.startsWith(policy));
    assert.not.match((await response.text()).replace('http://www.w3.org/2000/svg', ''), /https?:\/\//);
  }
  for (const path of [
    '/index.html',
    '/../annotate.ts',
    '/%2e%2e/annotate.ts',
    '/pictures/',
    '/pictures/a.png',
    '/pictures/..%2fa.png',
  ])
    assert.is((await fetch(served.url + path)).status, 404, path);
});

test('a pair is judged, taken back and judged again; its line is there before the answer', async () => {
  await using served = await serve();
  const first = await served.state('ann');
  assert.equal([first.pairs, first.done, first.skipped], [3, 0, 0]);
  const judge = (pair: string, side: string) =>
    served.post('/api/choice', { annotator: 'ann', pair, side, seconds: 2.345 });
  const { status, body } = await judge(first.now!.pair, 'left');
  assert.is(status, 200);
  assert.is(lineCount(served.out), 1);
  assert.match(readFileSync(served.out, 'utf8'), /"seconds":2\.3,"seed":0/);
  assert.equal(body, await served.state('ann'));
  assert.equal(body.now, first.next);
  const undone = await served.post('/api/undo', { annotator: 'ann' });
  assert.equal(undone.body, first);
  assert.is(lineCount(served.out), 2);
  let state = first;
  for (const side of ['right', 'tie', 'skip']) state = (await judge(state.now!.pair, side)).body;
  assert.equal(state, { annotator: 'ann', pairs: 3, done: 3, skipped: 1 });
  assert.is((await served.state('bob')).done, 0);
});

test('pictures come under names that say nothing, in a form that browsers show', async () => {
  const [tiff, broken] = [join(folder, 'a.tif'), join(folder, 'broken.tif')];
  await picture(20, 10).tiff().toFile(tiff);
  writeFileSync(broken, 'no picture');
  await using served = await serve([
    { ...comparisons[0], a: tiff },
    { ...comparisons[1], a: broken },
  ]);
  const kinds: string[] = [];
  for (let state = await served.state('ann'); state.now; ) {
    assert.not.match(JSON.stringify(state), /secret|\.png|\.tif/);
    const { pair, left, right, input } = state.now;
    for (const address of [left, right, input!]) {
      const response = await fetch(served.url + address);
      if (response.status === 500) kinds.push('broken');
      else {
        const { format, width } = await sharp(Buffer.from(await response.arrayBuffer())).metadata();
        assert.is(response.headers.get('content-type'), 'image/png');
        kinds.push(`${format} ${width}`);
      }
    }
    state = (await served.post('/api/choice', { annotator: 'ann', pair, side: 'skip' })).body;
  }
  assert.equal(kinds.sort(), ['broken', 'png 20', 'png 33', 'png 33', 'png 34', 'png 34']);
});

test('requests that make no sense change nothing and say why', async () => {
  await using served = await serve();
  const { pair } = (await served.state('ann')).now!;
  const good = { annotator: 'ann', pair, side: 'left' };
  for (const [body, status, why] of [
    ['{', 400, /a JSON object/],
    ['null', 400, /a JSON object/],
    [{ ...good, annotator: '' }, 400, /a name must have/],
    [{ ...good, annotator: 'a\nb' }, 400, /a name must have/],
    [{ ...good, pair: 'secret-model-0' }, 400, /no such pair/],
    [{ ...good, side: 'a' }, 400, /side must be left, right, tie, skip/],
  ] as const) {
    const answer = await served.post('/api/choice', body);
    assert.is(answer.status, status);
    assert.match(answer.body.error.message, why);
  }
  assert.is((await served.post('/api/choice', { ...good, annotator: 'x'.repeat(20_000) })).status, 413);
  assert.is((await served.post('/api/choice', good, { 'content-type': 'text/plain' })).status, 415);
  assert.is((await fetch(`${served.url}/api/state?annotator=`)).status, 400);
  assert.is(lineCount(served.out), 0);
  await served.post('/api/choice', good);
  assert.is((await served.post('/api/choice', good)).status, 200);
  assert.is((await served.post('/api/choice', { ...good, side: 'tie' })).status, 409);
  assert.is(lineCount(served.out), 1);
});

test('many at once lose nothing and double nothing', async () => {
  await using served = await serve();
  const people = Array.from({ length: 12 }, (_, i) => `person ${i}`);
  await Promise.all(
    people.map(async (annotator) => {
      for (let state = await served.state(annotator); state.now; ) {
        const body = { annotator, pair: state.now.pair, side: 'left' };
        const [answer] = await Promise.all([served.post('/api/choice', body), served.post('/api/choice', body)]);
        state = answer.body;
      }
    }),
  );
  assert.is(lineCount(served.out), 36);
  const { standings, agreement } = (await (await fetch(`${served.url}/api/agreement`)).json()) as {
    standings: { leftChosen: number }[];
    agreement: { couples: unknown[]; all: { pairs: number } };
  };
  assert.ok(standings.length === 12 && standings.every(({ leftChosen }) => leftChosen === 3));
  assert.is(agreement.couples.length, 66);
  assert.is(agreement.all.pairs, 3);
});

test('without a token it answers to names of this machine alone', async () => {
  await using served = await serve();
  for (const host of ['localhost:80', '127.0.0.1', '[::1]:8471', 'LOCALHOST'])
    assert.is(await get(served.url, { host }), 200);
  for (const host of [
    'evil.example',
    'localhost.evil.example',
    'evil-localhost',
    '127.0.0.1.evil.example:80',
    '192.168.0.1',
  ])
    assert.is(await get(served.url, { host }), 403, host);
});

test('with a token nobody gets in without it', async () => {
  const token = 'a-long-enough-token';
  await using served = await serve(comparisons, token);
  for (const path of [
    '/',
    '/?token=',
    '/?token=wrong',
    '/api/state?annotator=ann',
    `/api/state?annotator=ann&token=${token}`,
  ])
    assert.is((await fetch(served.url + path)).status, 401, path);
  assert.is((await served.post('/api/choice', {})).status, 401);
  const entry = await fetch(`${served.url}/?token=${token}`, { redirect: 'manual' });
  assert.is(entry.status, 303);
  assert.is(entry.headers.get('location'), '/');
  const cookie = entry.headers.get('set-cookie')!;
  assert.match(cookie, /HttpOnly; SameSite=Strict/);
  const [pair] = cookie.split(';');
  assert.is(await get(`${served.url}/api/state?annotator=ann`, { cookie: pair, host: 'studio:8471' }), 200);
  assert.is(await get(served.url, { cookie: pair.replace(token, `${token}x`) }), 401);
});

test('a port that is taken or none is refused', async () => {
  await using served = await serve();
  const app = annotateApp(await Annotations.open(comparisons, { out: join(folder, 'other.jsonl') }));
  for (const port of [Number(new URL(served.url).port), 1.5, 70_000])
    assert.is(await codeOf(() => Listening.start(app, '127.0.0.1', port)), 'ERR_OPTION');
});

test.run();
