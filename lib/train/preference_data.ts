import { Draws } from '../data/draws.ts';
import { ReflError } from '../errors.ts';
import { concatenated } from '../numbers.ts';
import type { Pictures } from '../reward/pictures.ts';
import type { ClipTokenizer } from '../text/tokenizer.ts';
import type { Label } from './labels.ts';

/** Pairs as a face reward model takes them. */
export interface PairBatch {
  /** float32 [2 pairs, size, size, 3]: A and B of the first pair, then of the next. */
  readonly images: Float32Array;
  /** Tokens of the captions, i32 [pairs, context length]. */
  readonly ids: Int32Array;
  /** The parts of the votes that A and B have, float32 [pairs, 2]. */
  readonly shares: Float32Array;
}

/** Bytes of prepared pictures that are kept, so that small data sets are decoded once. */
const keptBytes = 256 << 20;

/** Reads batches of labelled pairs. */
export class PreferenceData {
  private readonly pictures: Pictures;
  private readonly tokenizer: ClipTokenizer;
  private readonly length: number;
  private readonly caption: string | undefined;
  private readonly kept = new Map<string, Float32Array>();
  private readonly tokens = new Map<string, Int32Array>();
  private keptSize = 0;

  /**
   * @param length tokens of a caption, as the text tower takes them
   * @param caption stands in for those that pairs do not have
   */
  constructor(pictures: Pictures, tokenizer: ClipTokenizer, length: number, caption: string | undefined) {
    this.pictures = pictures;
    this.tokenizer = tokenizer;
    this.length = length;
    this.caption = caption;
  }

  /** Throws ERR_DATA where a pair has no caption and none stands in; returns how many captions are too long, and lose their end. */
  check(labels: readonly Label[]): number {
    const captions = new Set(labels.map((label) => this.captionOf(label)));
    return this.tokenizer.encode([...captions], this.length).shortened.length;
  }

  async batch(labels: readonly Label[]): Promise<PairBatch> {
    const images = await Promise.all(labels.flatMap(({ a, b }) => [this.picture(a), this.picture(b)]));
    const ids = new Int32Array(labels.length * this.length);
    for (const [i, label] of labels.entries()) ids.set(this.idsOf(this.captionOf(label)), i * this.length);
    return {
      images: concatenated(images),
      ids,
      shares: Float32Array.from(labels.flatMap(({ share }) => [share, 1 - share])),
    };
  }

  private captionOf({ pair, caption = this.caption }: Label): string {
    if (caption !== undefined) return caption;
    throw new ReflError('ERR_DATA', `the pair ${pair} has no caption: give one for all that have none (--caption)`);
  }

  private idsOf(caption: string): Int32Array {
    let ids = this.tokens.get(caption);
    if (!ids) {
      ids = this.tokenizer.encode([caption], this.length).ids;
      this.tokens.set(caption, ids);
    }
    return ids;
  }

  private async picture(path: string): Promise<Float32Array> {
    const known = this.kept.get(path);
    if (known) return known;
    const values = await this.pictures.prepare(path);
    if (this.keptSize + values.byteLength <= keptBytes && !this.kept.has(path)) {
      this.kept.set(path, values);
      this.keptSize += values.byteLength;
    }
    return values;
  }
}

/** Goes through items again and again, each round in an order of its own: the item at any place depends on the seed alone. */
export class Rounds<T> {
  private readonly items: readonly T[];
  private readonly seed: number;
  private round = -1;
  private order: readonly T[] = [];

  constructor(items: readonly T[], seed: number) {
    this.items = items;
    this.seed = seed;
  }

  /** The items at places `first` to `first + count - 1`. */
  take(first: number, count: number): T[] {
    return Array.from({ length: count }, (_, i) => this.at(first + i));
  }

  private at(place: number): T {
    const round = Math.floor(place / this.items.length);
    if (round !== this.round) {
      this.round = round;
      this.order = shuffled(this.items, new Draws(this.seed, round));
    }
    return this.order[place % this.items.length];
  }
}

/** Fisher and Yates. */
function shuffled<T>(items: readonly T[], draws: Draws): T[] {
  const order = [...items];
  for (let i = order.length - 1; i > 0; i--) {
    const j = draws.below(i + 1);
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}
