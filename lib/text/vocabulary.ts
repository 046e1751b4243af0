import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { ReflError } from '../errors.ts';
import { fileError, readBytes } from '../image/files.ts';

/** A byte-pair vocabulary: the number of each token, and the pairs that are merged, the first ones first. */
export interface Vocabulary {
  numbers: Map<string, number>;
  merges: (readonly [string, string])[];
  /** Tokens before and after a text. */
  start: string;
  end: string;
}

/** What a folder is searched for. */
const fileNames = ['tokenizer.json', 'merges.txt', 'bpe_simple_vocab_16e6.txt.gz', 'bpe_simple_vocab_16e6.txt'];
/** Hugging Face's names of the tokens around a text, and open_clip's own. */
const borders = [
  ['<|startoftext|>', '<|endoftext|>'],
  ['<start_of_text>', '<end_of_text>'],
] as const;
/** Merges that CLIP's vocabulary of 49,408 was made with: the published list goes on, unused. */
const mostMerges = 49_152 - 256 - 2;
/** Bytes of a file, unpacked, and tokens: those of CLIP have 1 to 4 MB and 49,408. */
const [largestFile, mostTokens] = [64 << 20, 1 << 20];

const bad = (path: string, why: string, cause?: unknown): ReflError =>
  new ReflError('ERR_FILE', `${path} is no tokenizer of CLIP's kind: ${why}`, { cause });

/**
 * Reads `tokenizer.json`, or a list of merges (`merges.txt`, or open_clip's `bpe_simple_vocab_16e6.txt.gz`), or whichever
 * of them lies in the folder `path`. Throws ERR_FILE for what cannot be read or is none of these.
 */
export async function readVocabulary(path: string): Promise<Vocabulary> {
  const file = await locate(path);
  const { size } = await stat(file);
  if (size > largestFile) throw bad(file, `it has ${size} bytes`);
  const bytes = await readBytes(file);
  const text = bytes[0] === 0x1f && bytes[1] === 0x8b ? unpack(bytes, file) : bytes.toString();
  return /^\s*\{/.test(text) ? fromJson(text, file) : fromMerges(text, file);
}

async function locate(path: string): Promise<string> {
  try {
    if (!(await stat(path)).isDirectory()) return path;
  } catch (error) {
    throw fileError('read', path, error);
  }
  for (const name of fileNames) {
    const there = await stat(join(path, name)).then(
      (found) => found.isFile(),
      () => false,
    );
    if (there) return join(path, name);
  }
  throw bad(path, `the folder holds none of ${fileNames.join(', ')}`);
}

function unpack(bytes: Buffer, path: string): string {
  try {
    return gunzipSync(bytes, { maxOutputLength: largestFile }).toString();
  } catch (error) {
    throw bad(path, `it cannot be unpacked (${(error as Error).message})`, error);
  }
}

/** The parts of Hugging Face's `tokenizer.json` that are the vocabulary's. */
interface TokenizerJson {
  model?: { type?: unknown; end_of_word_suffix?: unknown; vocab?: unknown; merges?: unknown };
}

function fromJson(text: string, path: string): Vocabulary {
  let model: TokenizerJson['model'];
  try {
    ({ model } = JSON.parse(text) as TokenizerJson);
  } catch (error) {
    throw bad(path, `it is not JSON (${(error as Error).message})`, error);
  }
  const { type, end_of_word_suffix, vocab, merges } = model ?? {};
  if (!(typeof vocab === 'object' && vocab && !Array.isArray(vocab) && Array.isArray(merges))) {
    throw bad(path, 'it has no model with a vocab and merges');
  }
  if ((type !== undefined && type !== 'BPE') || end_of_word_suffix !== '</w>') {
    throw bad(path, `its model is ${type} with words ending in ${end_of_word_suffix}, not BPE with </w>`);
  }
  const numbers = new Map<string, number>();
  for (const [token, number] of Object.entries(vocab)) {
    if (!(Number.isInteger(number) && number >= 0 && number < mostTokens)) {
      throw bad(path, `the token ${JSON.stringify(token)} has the number ${number}`);
    }
    numbers.set(token, number);
  }
  const pairs = merges.map((merge: unknown) => pairOf(typeof merge === 'string' ? merge.split(' ') : merge, path));
  return { numbers, merges: pairs, ...bordersOf(numbers, path) };
}

/** A vocabulary that follows from its merges: all bytes, all bytes that end a word, every merge, and the borders. */
function fromMerges(text: string, path: string): Vocabulary {
  const lines = text.split(/\r?\n/).filter((line) => line);
  // The first line is a heading.
  const merges = lines.slice(1, 1 + mostMerges).map((line) => pairOf(line.split(' '), path));
  if (!merges.length) throw bad(path, 'it lists no merges');
  const bytes = byteLetters();
  const [start, end] = borders[1];
  const tokens = [
    ...bytes,
    ...bytes.map((letter) => `${letter}</w>`),
    ...merges.map((pair) => pair.join('')),
    start,
    end,
  ];
  return { numbers: new Map(tokens.map((token, i) => [token, i])), merges, start, end };
}

function pairOf(parts: unknown, path: string): readonly [string, string] {
  if (Array.isArray(parts) && parts.length === 2 && parts.every((part) => typeof part === 'string' && part)) {
    return parts as unknown as readonly [string, string];
  }
  throw bad(path, `${JSON.stringify(parts)?.slice(0, 80)} is no pair of tokens`);
}

function bordersOf(numbers: Map<string, number>, path: string): { start: string; end: string } {
  const found = borders.find((pair) => pair.every((token) => numbers.has(token)));
  if (!found) throw bad(path, `it has neither ${borders.map((pair) => pair.join(' and ')).join(' nor ')}`);
  const end = numbers.get(found[1])!;
  for (const number of numbers.values()) {
    // A text's feature is read where the largest number stands.
    if (number > end) throw bad(path, `${found[1]} is number ${end}, but the last is ${number}`);
  }
  return { start: found[0], end: found[1] };
}

/** The printable letter that stands for each byte, in the vocabulary's order: those that are one themselves come first. */
function byteLetters(): string[] {
  const range = (first: number, last: number): number[] =>
    Array.from({ length: last - first + 1 }, (_, i) => first + i);
  const printable = [...range(0x21, 0x7e), ...range(0xa1, 0xac), ...range(0xae, 0xff)];
  return [...printable, ...range(256, 511 - printable.length)].map((code) => String.fromCharCode(code));
}

/**
 * A `tokenizer.json` that knows bytes and no words: for models that are drawn anew, whose vocabulary may be anything, and ours
 * to ship. 514 tokens.
 */
export function byteTokenizer(): string {
  const letters = byteLetters();
  const tokens = [...letters, ...letters.map((letter) => `${letter}</w>`), ...borders[0]];
  const vocab = Object.fromEntries(tokens.map((token, i) => [token, i]));
  return `${JSON.stringify({ model: { type: 'BPE', end_of_word_suffix: '</w>', vocab, merges: [] } })}\n`;
}
