import { getEventListeners } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { appendFile, readdir } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import sharp from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { CaptionEndpoint } from '../../lib/data/caption_endpoint.ts';
import {
  type CaptionEvents,
  Captioner,
  type CaptionOptions,
  estimateTokens,
  shorten,
  uncaptioned,
} from '../../lib/data/captions.ts';
import { ClipTokenizer } from '../../lib/text/tokenizer.ts';
import { picture, temporaryFolder } from '../restore/support.ts';
import { writeTokenizer } from '../reward/support.ts';
import { errorOf } from '../support/runtime.ts';

const test = suite('captions');
const folder = temporaryFolder();
const images = Array.from({ length: 12 }, (_, i) => join(folder, `${i}.png`));
for (const image of images) await picture(16, 12).png().toFile(image);

interface Asked {
  readonly model: string;
  readonly messages: { content: [{ text: string }, { image_url: { url: string } }] }[];
}
type Answer = (response: ServerResponse, asked: Asked, request: IncomingMessage) => void;

const say = (response: ServerResponse, content: unknown, status = 200, headers = {}): void => {
  response.writeHead(status, { 'content-type': 'application/json', ...headers });
  response.end(JSON.stringify(status === 200 ? { choices: [{ message: { role: 'assistant', content } }] } : content));
};
const captionOf = (n: number): string => `a face, number ${n}`;

/** An endpoint whose n-th request is answered by the n-th answer, later ones properly. */
class Endpoint {
  readonly requests: { asked: Asked; key: string | undefined }[] = [];
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  static async start(...answers: (Answer | undefined)[]): Promise<Endpoint> {
    const server = createServer(async (request, response) => {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk);
      const asked = JSON.parse(Buffer.concat(chunks).toString());
      const n = endpoint.requests.push({ asked, key: request.headers.authorization }) - 1;
      const answer = answers[n] ?? ((out: ServerResponse) => say(out, captionOf(n)));
      answer(response, asked, request);
    });
    const endpoint = new Endpoint(server);
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    return endpoint;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/v1`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((done) => this.#server.close(done));
  }
}

const asking = (endpoint: string, options = {}): CaptionEndpoint =>
  new CaptionEndpoint({ endpoint, model: 'llava', prompt: 'What is it?', firstWait: 0.01, retries: 2, ...options });

let files = 0;
const newFile = (): string => join(folder, `captions-${files++}.jsonl`);

interface Outcome {
  readonly failed: { image: string; message: string }[];
  readonly records: Record<string, unknown>[];
  readonly error?: Error & { code?: string };
}

/** Describes some pictures, one at a time unless told otherwise. */
async function run(options: CaptionOptions, count = 2, events: CaptionEvents = {}): Promise<Outcome> {
  const failed: Outcome['failed'] = [];
  let error: Error | undefined;
  {
    await using captioner = await Captioner.open({ concurrency: 1, ...options });
    const onFailure = (image: string, why: unknown) => failed.push({ image, message: (why as Error).message });
    await captioner.run(images.slice(0, count), { onFailure, ...events }).catch((why) => {
      error = why;
    });
  }
  return { failed, records: linesOf(options.out), error };
}

const linesOf = (path: string): Record<string, unknown>[] =>
  readFileSync(path, 'utf8')
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line));

test('a picture goes as JPEG of at most 768 pixels with the prompt, and its caption into the file', async () => {
  await using server = await Endpoint.start((response) => say(response, ' "A man,\n\u001b[31m smiling." '));
  const large = join(folder, 'large.png');
  await picture(1000, 500).png().toFile(large);
  const out = newFile();
  {
    await using captioner = await Captioner.open({ out, endpoint: asking(server.url, { key: 'secret' }) });
    await captioner.run([large]);
  }
  assert.equal(linesOf(out), [
    { image: 'large.png', caption: 'A man, [31m smiling.', source: 'endpoint', model: 'llava', prompt: 'What is it?' },
  ]);
  const [{ asked, key }] = server.requests;
  assert.is(key, 'Bearer secret');
  assert.is(asked.model, 'llava');
  const [{ text }, { image_url }] = asked.messages[0].content;
  assert.is(text, 'What is it?');
  const [, base64] = /^data:image\/jpeg;base64,(.*)$/.exec(image_url.url)!;
  const { format, width, height } = await sharp(Buffer.from(base64, 'base64')).metadata();
  assert.equal([format, width, height], ['jpeg', 768, 384]);
});

test('a key of the environment is not sent unasked', async () => {
  process.env.OPENAI_API_KEY = 'private';
  try {
    await using server = await Endpoint.start();
    await asking(server.url).describe(images[0]);
    assert.not.match(String(server.requests[0].key), /private/);
  } finally {
    delete process.env.OPENAI_API_KEY;
  }
});

const cut: Answer = (response) => {
  response.writeHead(200, { 'content-type': 'application/json', 'content-length': 1000 });
  response.write('{"choices": [');
  setTimeout(() => response.destroy(), 10);
};
const faults: Record<string, Answer> = {
  'too many requests': (response) => say(response, { error: { message: 'slow down' } }, 429, { 'retry-after': '0' }),
  'overloaded until a date': (response) => say(response, {}, 503, { 'retry-after': new Date().toUTCString() }),
  'an internal error': (response) => say(response, { error: { message: 'out of memory' } }, 500),
  'a connection cut off': (response) => response.destroy(),
  'an answer cut off': cut,
  'a page of HTML': (response) => response.writeHead(200, { 'content-type': 'text/html' }).end('<h1>Loading</h1>'),
  'broken JSON': (response) => response.writeHead(200, { 'content-type': 'application/json' }).end('{"choices": ['),
  'no choices': (response) => response.writeHead(200, { 'content-type': 'application/json' }).end('{"choices": []}'),
  null: (response) => response.writeHead(200, { 'content-type': 'application/json' }).end('null'),
  'an empty caption': (response) => say(response, '   '),
  'a caption of signs': (response) => say(response, '?!?! 42'),
  'a number': (response) => say(response, 42),
  'an endless caption': (response) => say(response, 'word '.repeat(10_000)),
};

for (const [name, fault] of Object.entries(faults)) {
  test(`${name}: it is asked again, and fails that picture alone where it goes on`, async () => {
    {
      await using server = await Endpoint.start(fault);
      const { records, failed } = await run({ out: newFile(), endpoint: asking(server.url) });
      assert.equal(failed, []);
      assert.equal(
        records.map(({ caption }) => caption),
        [captionOf(1), captionOf(2)],
      );
    }
    await using server = await Endpoint.start(fault, fault, fault);
    const { records, failed, error } = await run({ out: newFile(), endpoint: asking(server.url) });
    if (name === 'too many requests') {
      assert.is(error?.code, 'ERR_ENDPOINT');
      assert.match(error!.message, /^http:.*429.*\(3 attempts\)$/);
      assert.equal(records, []);
    } else {
      assert.is(failed.length, 1);
      assert.is(failed[0].image, images[0]);
      assert.match(failed[0].message, /^http:.*\(3 attempts\)$/);
      assert.not.match(failed[0].message, /\n/);
      assert.equal(
        records.map(({ image }) => image),
        ['1.png'],
      );
    }
  });
}

test('an endpoint that is slow is given up in time, before its answer and in the middle of it', async () => {
  const silent: Answer = () => {};
  const trickle: Answer = (response) => {
    response.writeHead(200, { 'content-type': 'application/json' });
    const timer = setInterval(() => response.write(' '), 20);
    response.on('close', () => clearInterval(timer));
  };
  for (const slow of [silent, trickle]) {
    await using server = await Endpoint.start(slow);
    const { records, failed } = await run({
      out: newFile(),
      endpoint: asking(server.url, { timeout: 0.3, retries: 0 }),
    });
    assert.match(failed[0].message, /no answer in time/);
    assert.is(records.length, 1);
  }
});

test('what would be the same for all pictures ends the work at once, and what was written stays', async () => {
  const wrong =
    (status: number): Answer =>
    (response) =>
      say(response, { error: { message: 'no such thing' } }, status);
  const later: Answer = (response) => say(response, {}, 429, { 'retry-after': '3600' });
  for (const [answer, why] of [
    [wrong(401), /it answers 401, it wants a key.*no such thing/],
    [wrong(404), /404, the address or the model is not known there/],
    [later, /asks to come back in 3600 s/],
  ] as const) {
    await using server = await Endpoint.start(undefined, answer);
    const { records, error } = await run({ out: newFile(), endpoint: asking(server.url) }, 4);
    assert.is(error?.code, 'ERR_ENDPOINT');
    assert.match(error!.message, why);
    assert.is(records.length, 1);
    assert.is(server.requests.length, 2);
  }
  await using gone = await Endpoint.start();
  const { url } = gone;
  await gone[Symbol.asyncDispose]();
  const { error } = await run({ out: newFile(), endpoint: asking(url) });
  assert.match(error!.message, /cannot be reached \(ECONNREFUSED\): is it running\? \(3 attempts\)/);
});

test('a request that the endpoint refuses fails one picture; eight in a row are enough', async () => {
  const refuse: Answer = (response) => say(response, { error: { message: 'no image support' } }, 400);
  await using server = await Endpoint.start(...Array.from({ length: 12 }, (_, i) => (i === 1 ? undefined : refuse)));
  const { records, failed, error } = await run({ out: newFile(), endpoint: asking(server.url) }, 12);
  assert.is(records.length, 1);
  assert.is(failed.length, 8);
  assert.match(error!.message, /no image support; 8 pictures failed one after the other/);
});

test('too many requests make all wait, not only the one that was told', async () => {
  const times: number[] = [];
  const timed =
    (answer: Answer): Answer =>
    (...all) => {
      times.push(performance.now());
      answer(...all);
    };
  const stop = timed((response) => say(response, {}, 429, { 'retry-after': '1' }));
  const fine = timed((response) => say(response, 'a face'));
  await using server = await Endpoint.start(stop, ...Array.from({ length: 6 }, () => fine));
  const { records } = await run({ out: newFile(), endpoint: asking(server.url), concurrency: 2 }, 6);
  assert.is(records.length, 6);
  // The second worker's first request may be under way already.
  const meanwhile = times.slice(1).filter((time) => time - times[0] < 900);
  assert.ok(meanwhile.length <= 1, `${meanwhile.length} requests came while it was to be left alone`);
});

test('nobody goes on listening to the signal', async () => {
  await using server = await Endpoint.start(faults['an internal error']);
  const { signal } = new AbortController();
  await run({ out: newFile(), endpoint: asking(server.url) }, 2, { signal });
  await asking(server.url).describe(images[0], signal);
  assert.equal(getEventListeners(signal, 'abort'), []);
});

test('several at once: each picture has one line, whole', async () => {
  const late: Answer = (response, asked) =>
    setTimeout(() => say(response, `a face: ${asked.model}`), 30 * Math.random());
  await using server = await Endpoint.start(...Array.from({ length: 12 }, () => late));
  const { records } = await run({ out: newFile(), endpoint: asking(server.url), concurrency: 5 }, 12);
  assert.equal(records.map(({ image }) => image).sort(), images.map((_, i) => `${i}.png`).sort());
  assert.is(server.requests.length, 12);
});

test('a run goes on where one ended, over a line that was cut off, and refuses another model or prompt', async () => {
  await using server = await Endpoint.start();
  const out = newFile();
  await run({ out, endpoint: asking(server.url) }, 2);
  await appendFile(out, '{"image": "2.png", "capt');
  assert.equal(await uncaptioned(images.slice(0, 4), { out, endpoint: asking(server.url) }), images.slice(2, 4));
  const { records } = await run({ out, endpoint: asking(server.url) }, 4);
  assert.equal(
    records.map(({ image, caption }) => [image, caption]),
    [0, 1, 2, 3].map((i) => [`${i}.png`, captionOf(i)]),
  );
  assert.is(server.requests.length, 4);
  for (const options of [{ endpoint: asking(server.url, { prompt: 'Who?' }) }, {}]) {
    const error = await errorOf(() => run({ out, ...options }));
    assert.is(error.code, 'ERR_OPTION');
    assert.match(error.message, /line 1 comes from llava: What is it\?; now it would be/);
  }
  assert.is(linesOf(out).length, 4);
});

test("people's own captions are kept, contradictions refused", async () => {
  const out = newFile();
  writeFileSync(out, '{"image": "0.png", "caption": "my aunt"}\n');
  const { records } = await run({ out });
  assert.equal(records[0], { image: '0.png', caption: 'my aunt' });
  assert.equal(records[1], { image: '1.png', caption: "a photo of a person's face", source: 'default' });
  await appendFile(out, '{"image": "./0.png", "caption": "my uncle"}\n');
  const error = await errorOf(() => run({ out }));
  assert.is(error.code, 'ERR_DATA');
  assert.match(error.message, /line 3: .*0\.png has another caption before/);
});

test('a second writer is refused, and the lock goes with the first', async () => {
  const out = newFile();
  {
    await using _ = await Captioner.open({ out });
    const error = await errorOf(() => Captioner.open({ out }));
    assert.is(error.code, 'ERR_FILE');
    assert.match(error.message, /is being written by process/);
  }
  await run({ out });
  assert.not.ok((await readdir(folder)).some((name) => name.includes('.lock')));
});

test('an interruption ends a wait, and keeps what was written', async () => {
  const later: Answer = (response) => say(response, {}, 503, { 'retry-after': '50' });
  await using server = await Endpoint.start(undefined, later);
  const controller = new AbortController();
  const begin = performance.now();
  setTimeout(() => controller.abort(new Error('enough')), 400);
  const { records, error } = await run({ out: newFile(), endpoint: asking(server.url) }, 3, {
    signal: controller.signal,
  });
  assert.is(error?.message, 'enough');
  assert.is(records.length, 1);
  assert.ok(performance.now() - begin < 10_000);
});

test('a picture that cannot be read fails alone', async () => {
  await using server = await Endpoint.start();
  const bad = join(folder, 'bad.png');
  writeFileSync(bad, 'no picture');
  const out = newFile();
  await using captioner = await Captioner.open({ out, endpoint: asking(server.url) });
  const failed: string[] = [];
  await captioner.run([bad, images[0]], { onFailure: (image) => failed.push(image) });
  assert.equal(failed, [bad]);
  assert.is(linesOf(out).length, 1);
});

test('an address that is none is refused', async () => {
  for (const endpoint of ['localhost:8080', 'ftp://a/v1', '']) {
    assert.is((await errorOf(() => new CaptionEndpoint({ endpoint, model: 'm' }))).code, 'ERR_OPTION');
  }
});

test('captions are shortened to 75 tokens: by sentences, else by words', async () => {
  const words = (count: number): string => Array.from({ length: count }, () => 'word').join(' ');
  assert.is(shorten(`${words(74)}.`, estimateTokens), `${words(74)}.`);
  assert.is(shorten(`${words(40)}. ${words(20)}! ${words(20)}.`, estimateTokens), `${words(40)}. ${words(20)}!`);
  assert.is(shorten(words(80), estimateTokens), words(75));
  assert.is(shorten('x'.repeat(400), estimateTokens), 'x'.repeat(300));
  assert.is(shorten('脸'.repeat(40), estimateTokens), '脸'.repeat(25));
  // By a vocabulary: "low" is one token there, any other letter one for itself.
  const tokenizer = await ClipTokenizer.load(writeTokenizer(folder));
  const count = (text: string): number => tokenizer.tokens(text).length;
  assert.is(shorten('low '.repeat(80).trim(), count), 'low '.repeat(75).trim());
  const out = newFile();
  const { records } = await run({ out, tokenizer, caption: 'low '.repeat(80).trim() }, 1);
  assert.is(records[0].caption, 'low '.repeat(75).trim());
  assert.is(records[0].full, 'low '.repeat(80).trim());
  await run({ out, tokenizer, caption: 'low '.repeat(80).trim() }, 2);
  assert.is(linesOf(out).length, 2);
});

test('tokens are not estimated too low for what captions are made of', () => {
  // Numbers of tokens by OpenAI's vocabulary.
  for (const [text, tokens] of [
    ['a photo of a cat', 5],
    ["a middle-aged woman with shoulder-length auburn hair, rimless spectacles and a slight smile, isn't she?", 25],
    ['A photo of a bearded man in his 30s wearing sunglasses and a baseball cap, backlit by neon signage.', 24],
    ['une femme âgée aux cheveux châtains', 11],
    ['a toddler with freckles; blurred foliage, bokeh, chiaroscuro lighting', 16],
  ] as const) {
    assert.ok(estimateTokens(text) >= tokens, text);
  }
});

test.run();
