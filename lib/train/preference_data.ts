import { Draws } from '../data/draws.ts';
import { ReflError } from '../errors.ts';
import { decodeImage, type Rgb } from '../image/picture.ts';
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

/** Bytes of decoded pictures that are kept, so that small data sets are decoded once. */
const keptBytes = 512 << 20;

/** Ways to lay a square down: turned by quarters, face up or down. */
export const ways = 8;

/** Reads batches of labelled pairs. */
export class PreferenceData {
  private readonly pictures: Pictures;
  private readonly tokenizer: ClipTokenizer;
  private readonly length: number;
  private readonly caption: string | undefined;
  private readonly kept = new Map<string, Rgb>();
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

  /** @param wayOf the way, of {@link ways}, in which both pictures of pair `i` are laid down; as they are without */
  async batch(labels: readonly Label[], wayOf: (i: number) => number = () => 0): Promise<PairBatch> {
    const picture = (path: string, i: number): Promise<Float32Array> => this.picture(path, wayOf(i));
    const images = await Promise.all(labels.flatMap(({ a, b }, i) => [picture(a, i), picture(b, i)]));
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

  private async picture(path: string, way: number): Promise<Float32Array> {
    return this.pictures.prepareDecoded(laidDown(await this.decoded(path), way), path);
  }

  private async decoded(path: string): Promise<Rgb> {
    const known = this.kept.get(path);
    if (known) return known;
    const { width, height, data } = await decodeImage(path);
    const picture = { width, height, data };
    if (this.keptSize + data.byteLength <= keptBytes && !this.kept.has(path)) {
      this.kept.set(path, picture);
      this.keptSize += data.byteLength;
    }
    return picture;
  }
}

/** A picture mirrored, upside down and with its axes exchanged, as the bits of `way` say. */
function laidDown(picture: Rgb, way: number): Rgb {
  if (!way) return picture;
  const { width, height, data } = picture;
  const [mirrored, upsideDown, exchanged] = [1, 2, 4].map((bit) => (way & bit) !== 0);
  const [w, h] = exchanged ? [height, width] : [width, height];
  const turned = new Uint8Array(data.length);
  for (let y = 0, to = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      const [column, row] = exchanged ? [y, x] : [x, y];
      let from = 3 * ((upsideDown ? height - 1 - row : row) * width + (mirrored ? width - 1 - column : column));
      turned[to++] = data[from++];
      turned[to++] = data[from++];
      turned[to++] = data[from];
    }
  }
  return { width: w, height: h, data: turned };
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
