import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { cleanText } from '../../lib/text/clean.ts';
import { ClipTokenizer } from '../../lib/text/tokenizer.ts';
import { byteTokenizer, readVocabulary } from '../../lib/text/vocabulary.ts';
import { errorOf } from '../support/runtime.ts';

const test = suite<{ folder: string }>('tokenizer', {} as { folder: string });
test.before((context) => {
  context.folder = mkdtempSync(join(tmpdir(), 'refl-tokens-'));
});
test.after(({ folder }) => rmSync(folder, { recursive: true }));

// 512 tokens are bytes, with and without the end of a word; then come the merges, and the two borders.
const merges = '#version: 0.2\nl o\nlo w</w>\ne r</w>\n';
const [lo, low, er, start, end] = [512, 513, 514, 515, 516];
/** Number of a printable ASCII character, and of one that ends a word. */
const letter = (c: string): number => c.charCodeAt(0) - 0x21;
const last = (c: string): number => letter(c) + 256;

function put(folder: string, name: string, content: string | Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

test('pairs are merged in their order, words end, digits stand alone', async ({ folder }) => {
  const tokenizer = await ClipTokenizer.load(put(folder, 'merges.txt', merges));
  assert.is(tokenizer.size, 517);
  assert.equal(tokenizer.tokens('low'), [low]);
  assert.equal(tokenizer.tokens('  Low\n LOWER!'), [low, lo, letter('w'), er, last('!')]);
  assert.equal(tokenizer.tokens('lowlow'), [lo, letter('w'), low]);
  assert.equal(tokenizer.tokens('42'), [last('4'), last('2')]);
  assert.equal(tokenizer.tokens('don’t'), [letter('d'), letter('o'), last('n'), letter("'"), last('t')]);
  assert.equal(tokenizer.tokens('!?'), [letter('!'), last('?')]);
  // Bytes C3 A9: the letters of the bytes A1 to AC are numbered from 94 on, those of AE to FF from 106 on.
  assert.equal(tokenizer.tokens('e\u0301'), [106 + 0xc3 - 0xae, 94 + 0xa9 - 0xa1 + 256]);
  assert.equal(tokenizer.tokens(' '), []);
  assert.equal(tokenizer.tokens('low <end_of_text> low'), [low, end, low]);
});

test('a vocabulary of bytes alone spells everything', async ({ folder }) => {
  const tokenizer = await ClipTokenizer.load(put(folder, 'bytes.json', byteTokenizer()));
  assert.is(tokenizer.size, 514);
  assert.equal(tokenizer.tokens('A face'), [last('a'), ...[...'fac'].map(letter), last('e')]);
  assert.equal(tokenizer.tokens('e\u0301'), [106 + 0xc3 - 0xae, 94 + 0xa9 - 0xa1 + 256]);
  assert.equal([...tokenizer.encode(['a'], 4).ids], [512, last('a'), 513, 0]);
});

test('text is cleaned as CLIP cleans it', () => {
  assert.is(cleanText('  A &amp;amp; B\u00a0&lt;i&gt; \t\n'), 'a & b <i>');
  assert.is(cleanText('“Ｆａｃｅ” ﬁne\u0000 caf\u0065\u0301 &eacute &#39;x'), '"face" fine café é \'x');
  assert.is(cleanText('a\u0085b\u2028c\ufeff'), 'a b c');
});

test('texts are padded with zeros or cut before the end token, and it is said which', async ({ folder }) => {
  const tokenizer = await ClipTokenizer.load(put(folder, 'merges.txt', merges));
  const { ids, shortened } = tokenizer.encode(['low', 'low '.repeat(9), '', 'low low low'], 5);
  assert.equal(
    [...ids],
    [start, low, end, 0, 0, start, low, low, low, end, start, end, 0, 0, 0, start, low, low, low, end],
  );
  assert.equal(shortened, [1]);
  assert.equal(tokenizer.encode(['low']).ids.length, 77);
});

test('a very long text is cut before it is read', async ({ folder }) => {
  const tokenizer = await ClipTokenizer.load(put(folder, 'merges.txt', merges));
  const begun = performance.now();
  assert.is(tokenizer.encode(['low'.repeat(3_000_000)]).ids[76], end);
  assert.ok(performance.now() - begun < 2000);
});

const json = async (folder: string): Promise<{ model: Record<string, unknown> }> => {
  const { numbers, merges: pairs } = await readVocabulary(put(folder, 'merges.txt', merges));
  const renamed = [...numbers].map(([token, number]) => [
    token.replace(/^<(start|end)_of_text>$/, '<|$1oftext|>'),
    number,
  ]);
  const model = { type: 'BPE', end_of_word_suffix: '</w>', vocab: Object.fromEntries(renamed), merges: pairs };
  return { model };
};

test('tokenizer.json in its older and newer form, packed merges and folders give the same tokens', async ({
  folder,
}) => {
  const text = 'Lower than low: é!';
  const expected = (await ClipTokenizer.load(put(folder, 'merges.txt', merges))).encode([text]);
  const { model } = await json(folder);
  const older = { model: { ...model, merges: (model.merges as string[][]).map((pair) => pair.join(' ')) } };
  const inFolder = join(folder, 'inner');
  mkdirSync(inFolder);
  put(inFolder, 'tokenizer.json', JSON.stringify({ model }));
  for (const path of [
    put(folder, 'new.json', JSON.stringify({ model })),
    put(folder, 'old.json', JSON.stringify(older)),
    put(folder, 'merges.txt.gz', gzipSync(merges)),
    put(folder, 'crlf.txt', merges.replaceAll('\n', '\r\n')),
    inFolder,
  ]) {
    assert.equal((await ClipTokenizer.load(path)).encode([text]), expected, path);
  }
});

test("merges beyond CLIP's own are left out", async ({ folder }) => {
  const many = `#version\n${Array.from({ length: 50_000 }, (_, i) => `a ${i}`).join('\n')}`;
  assert.is((await ClipTokenizer.load(put(folder, 'many.txt', many))).size, 49_408);
});

test('what is no tokenizer is refused with the reason', async ({ folder }) => {
  const { model } = await json(folder);
  const vocab = model.vocab as Record<string, number>;
  const of = (change: object): string => JSON.stringify({ model: { ...model, ...change } });
  const empty = join(folder, 'empty');
  mkdirSync(empty);
  const refused: [content: string | Uint8Array, why: RegExp][] = [
    ['{"model": {', /is not JSON/],
    ['{}', /no model with a vocab and merges/],
    ['{"model": null}', /no model with a vocab and merges/],
    [of({ type: 'WordPiece' }), /its model is WordPiece with words ending in <\/w>/],
    [of({ end_of_word_suffix: '' }), /words ending in , not BPE/],
    [of({ vocab: { ...vocab, x: 1e9 } }), /the token "x" has the number 1000000000/],
    [of({ vocab: { ...vocab, x: -1 } }), /the number -1/],
    [of({ vocab: { ...vocab, x: 9999 } }), /endoftext\|> is number 516, but the last is 9999/],
    [of({ vocab: { a: 0 } }), /it has neither <\|startoftext\|> and/],
    [of({ merges: ['a b c'] }), /\["a","b","c"\] is no pair/],
    [of({ merges: [{ a: 1 }] }), /\{"a":1\} is no pair/],
    ['', /lists no merges/],
    ['#version\nonly', /\["only"\] is no pair/],
    [gzipSync(Buffer.alloc(65 << 20)), /cannot be unpacked/],
    [Uint8Array.of(0x1f, 0x8b, 1, 2), /cannot be unpacked/],
  ];
  for (const [content, why] of refused) {
    const error = await errorOf(() => ClipTokenizer.load(put(folder, 'bad', content)));
    assert.is(error.code, 'ERR_FILE');
    assert.match(error.message, why);
  }
  assert.match((await errorOf(() => ClipTokenizer.load(empty))).message, /the folder holds none of tokenizer\.json/);
  assert.match((await errorOf(() => ClipTokenizer.load(join(folder, 'none')))).message, /no such file/);
});

test.run();
