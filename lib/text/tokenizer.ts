import { createHash } from 'node:crypto';
import { Tokenizer } from '@huggingface/tokenizers';
import { cleanText } from './clean.ts';
import { readVocabulary, type Vocabulary } from './vocabulary.ts';

/** Texts as CLIP reads them. */
export interface Tokens {
  /** i32 [texts, length], row-major: start token, text, end token, zeros. */
  ids: Int32Array;
  /** Which texts were too long and lost their last tokens. */
  shortened: number[];
}

/** What a cleaned text is cut into before pairs are merged: contractions, words, single digits, runs of anything else. */
export const words = "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+";
/** Characters of one text that are looked at: far more than 77 tokens hold. */
const longestText = 20_000;

/** CLIP's byte-pair tokenizer (Radford et al. 2021), with the vocabulary of a file that the user has. */
export class ClipTokenizer {
  /** Tokens that it knows: a text tower's table needs as many rows. */
  readonly size: number;
  /** Tells it from others: SHA-256 of its tokens and merges. */
  readonly digest: string;
  readonly #start: number;
  readonly #end: number;
  readonly #tokenizer: Tokenizer;

  private constructor({ numbers, merges, start, end }: Vocabulary) {
    this.#start = numbers.get(start)!;
    this.#end = numbers.get(end)!;
    this.size = this.#end + 1;
    this.digest = createHash('sha256')
      .update(JSON.stringify([[...numbers], merges]))
      .digest('hex');
    const special = { special: true, single_word: false, lstrip: false, rstrip: false, normalized: false };
    this.#tokenizer = new Tokenizer(
      {
        model: {
          type: 'BPE',
          unk_token: end,
          end_of_word_suffix: '</w>',
          vocab: Object.fromEntries(numbers),
          merges,
        },
        pre_tokenizer: {
          type: 'Sequence',
          pretokenizers: [
            { type: 'Split', pattern: { Regex: words }, behavior: 'Removed', invert: true },
            { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false },
          ],
        },
        // The text is clean when it comes, and nothing is put around it here.
        normalizer: null,
        post_processor: null,
        decoder: null,
        added_tokens: [start, end].map((content) => ({ ...special, content, id: numbers.get(content) })),
      },
      {},
    );
  }

  /**
   * Reads `tokenizer.json`, or a list of merges (`merges.txt`, or open_clip's `bpe_simple_vocab_16e6.txt.gz`), or
   * whichever of them lies in the folder `path`. Only the vocabulary and the merges are taken: how text is cleaned and split
   * is CLIP's, whatever the file says. Throws ERR_FILE for what is no tokenizer of this kind.
   */
  static async load(path: string): Promise<ClipTokenizer> {
    return new ClipTokenizer(await readVocabulary(path));
  }

  /** The tokens of one text, however many, without those around it. */
  tokens(text: string): number[] {
    return this.#tokenizer.encode(cleanText(text.slice(0, longestText)), { add_special_tokens: false }).ids;
  }

  /** Tokens of texts, each cut to `length` with the end token last, or filled up with zeros. */
  encode(texts: readonly string[], length = 77): Tokens {
    const ids = new Int32Array(texts.length * length);
    const shortened: number[] = [];
    texts.forEach((text, i) => {
      const tokens = this.tokens(text);
      if (tokens.length > length - 2) shortened.push(i);
      ids.set([this.#start, ...tokens.slice(0, length - 2), this.#end], i * length);
    });
    return { ids, shortened };
  }
}
