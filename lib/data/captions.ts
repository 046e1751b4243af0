import { access } from 'node:fs/promises';
import { dirname, relative, resolve, sep } from 'node:path';
import { ReflError } from '../errors.ts';
import { makeFolder } from '../image/files.ts';
import { cleanText } from '../text/clean.ts';
import { type ClipTokenizer, words } from '../text/tokenizer.ts';
import { JsonLinesFile, type Line, optionalTextOf, readJsonLines, textOf } from './jsonl.ts';

/** What a picture is said to show where nobody was asked. */
export const defaultCaption = "a photo of a person's face";

export const defaultPrompt =
  'Describe the face in this photo in one sentence of at most 40 words: apparent age, hair, expression, glasses or other ' +
  'accessories, light and background. Answer with the sentence alone.';

/** Somebody who says what pictures show, such as a vision model. */
export interface Describer {
  readonly model: string;
  readonly prompt: string;
  /** One line. Throws an {@link EndpointError}, ERR_IMAGE and ERR_FILE where the picture cannot be read, and the signal's reason. */
  describe(image: string, signal?: AbortSignal): Promise<string>;
}

/** An ERR_ENDPOINT. */
export class EndpointError extends ReflError {
  /** Whether it would be the same for every picture. */
  readonly always: boolean;
  constructor(message: string, always: boolean, options?: ErrorOptions) {
    super('ERR_ENDPOINT', message, options);
    this.always = always;
  }
}

/**
 * A line of a file of captions, `image` being relative to the file:
 *
 *     {"image": "p7.png", "caption": "a man with glasses", "source": "endpoint", "model": "llava", "prompt": "Describe ..."}
 */
export interface Caption {
  readonly image: string;
  /** At most 75 of CLIP's tokens, which with the two around them are the 77 that its text tower reads. */
  readonly caption: string;
  /** Whether a model wrote it, or it is the same for all pictures. */
  readonly source: 'endpoint' | 'default';
  readonly model?: string;
  readonly prompt?: string;
  /** What the model wrote, where that was too long. */
  readonly full?: string;
}

/** Tokens of a caption, counted or estimated. */
export type Count = (text: string) => number;

const mostTokens = 75;

/**
 * A number of tokens without the vocabulary, from what CLIP cuts a text into: one for every four letters of a word that has
 * only Latin letters, begun ones counted whole, and one for each byte of anything else. On English prose that is a quarter
 * too many; where text is no prose it may be a few too few, which the tokenizer itself will cut.
 */
export const estimateTokens: Count = (text) =>
  [...cleanText(text).matchAll(new RegExp(words, 'gu'))].reduce(
    (sum, [word]) => sum + (/^[a-z']+$/.test(word) ? Math.ceil(word.length / 4) : Buffer.byteLength(word)),
    0,
  );

/** As much of the beginning of a caption as has at most 75 tokens: whole sentences where the first one fits, else whole words. */
export function shorten(caption: string, count: Count): string {
  if (count(caption) <= mostTokens) return caption;
  const fits = (parts: readonly string[]): string => {
    let text = '';
    for (const part of parts) {
      if (count(text + part) > mostTokens) break;
      text += part;
    }
    return text.trim();
  };
  // A word of a hundred letters, or a language without spaces, is cut anywhere.
  return fits(caption.split(/(?<=[.!?])(?=\s)/)) || fits(caption.split(/(?=\s)/)) || fits([...caption]);
}

export interface CaptionOptions {
  /** The file of captions: made, or gone on with. */
  readonly out: string;
  /** Who describes the pictures. Without it they all get `caption`. */
  readonly endpoint?: Describer;
  readonly caption?: string;
  /** Counts tokens; without it their number is estimated. */
  readonly tokenizer?: ClipTokenizer;
  /** Pictures asked for at once. */
  readonly concurrency?: number;
}

export interface CaptionEvents {
  readonly signal?: AbortSignal;
  /** A caption is on the disk. */
  readonly onCaption?: (image: string, caption: Caption) => void;
  readonly onFailure?: (image: string, error: unknown) => void;
}

/** Pictures one after the other whose failure ends the work: it is the endpoint then, and not they. */
const mostFailures = 8;

/** Writes captions, and knows which pictures have one. */
export class Captioner {
  readonly #file: JsonLinesFile;
  readonly #options: CaptionOptions;
  readonly #known: ReadonlySet<string>;

  private constructor(file: JsonLinesFile, options: CaptionOptions, known: ReadonlySet<string>) {
    this.#file = file;
    this.#options = options;
    this.#known = known;
  }

  /**
   * Opens or makes the file of captions. Throws ERR_FILE, also where another process writes it, ERR_DATA where its lines make no
   * sense, ERR_OPTION where they come from another model or prompt.
   */
  static async open(options: CaptionOptions): Promise<Captioner> {
    await makeFolder(dirname(resolve(options.out)));
    const file = await JsonLinesFile.open(options.out);
    try {
      return new Captioner(file, options, knownIn(file.lines, options));
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** Whether the file's last line had been cut off: it was removed, and its picture is asked for again. */
  get cut(): boolean {
    return this.#file.cut;
  }

  has(image: string): boolean {
    return this.#known.has(resolve(image));
  }

  /**
   * Writes a caption for each picture that has none, each as soon as it is known. A picture that cannot be read, or that the
   * endpoint fails on, is reported, and the others' turn comes. Throws an ERR_ENDPOINT where nothing else is to be expected
   * for the rest, ERR_FILE where the file cannot be written, and the signal's reason; captions written until then stay.
   */
  async run(images: readonly string[], { signal, onCaption, onFailure }: CaptionEvents = {}): Promise<void> {
    const queue = images.filter((image) => !this.has(image));
    const stop = new AbortController();
    const abort = (): void => stop.abort(signal?.reason);
    if (signal?.aborted) abort();
    signal?.addEventListener('abort', abort);
    let failures = 0;
    const work = async (): Promise<void> => {
      for (let image = queue.shift(); image !== undefined; image = queue.shift()) {
        stop.signal.throwIfAborted();
        let caption: Caption;
        try {
          caption = await this.#describe(image, stop.signal);
          failures = 0;
        } catch (error) {
          stop.signal.throwIfAborted();
          if (error instanceof EndpointError) {
            if (error.always) throw error;
            if (++failures === mostFailures) {
              const enough = `${mostFailures} pictures failed one after the other, so the rest was left`;
              throw new EndpointError(`${error.message}; ${enough}`, true, { cause: error });
            }
          }
          onFailure?.(image, error);
          continue;
        }
        await this.#file.append(caption);
        onCaption?.(image, caption);
      }
    };
    const { concurrency = 4 } = this.#options;
    const workers = Array.from({ length: concurrency }, () =>
      work().catch((error) => {
        // The first one's reason ends all others.
        stop.abort(error);
      }),
    );
    await Promise.all(workers);
    signal?.removeEventListener('abort', abort);
    stop.signal.throwIfAborted();
  }

  async #describe(image: string, signal: AbortSignal): Promise<Caption> {
    const { out, endpoint, caption = defaultCaption, tokenizer } = this.#options;
    const told = endpoint ? await endpoint.describe(image, signal) : caption;
    const short = shorten(told, tokenizer ? (text) => tokenizer.tokens(text).length : estimateTokens);
    return {
      image: relative(dirname(resolve(out)), resolve(image)).replaceAll(sep, '/'),
      caption: short,
      ...(endpoint
        ? { source: 'endpoint', model: endpoint.model, prompt: endpoint.prompt }
        : { source: 'default' as const }),
      ...(short !== told && { full: told }),
    };
  }

  /** Safe to call twice. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#file.close();
  }
}

/**
 * The pictures of `images` that a run with these options would still describe. Nothing is written. Throws as
 * {@link Captioner.open} does, but does not mind another writer.
 */
export async function uncaptioned(images: readonly string[], options: CaptionOptions): Promise<string[]> {
  const isThere = await access(options.out).then(
    () => true,
    () => false,
  );
  const known = isThere ? knownIn((await readJsonLines(options.out)).lines, options) : new Set();
  return images.filter((image) => !known.has(resolve(image)));
}

/** Absolute paths of the pictures that the lines of a file describe. Captions that people wrote have no source, and stay. */
function knownIn(lines: readonly Line[], options: CaptionOptions): Set<string> {
  const { out, endpoint } = options;
  const ours = endpoint ? `${endpoint.model}: ${endpoint.prompt}` : `the caption ${options.caption ?? defaultCaption}`;
  const known = new Map<string, string>();
  for (const line of lines) {
    const image = resolve(dirname(out), textOf(line, 'image'));
    const caption = textOf(line, 'caption');
    const [source, model, prompt, full] = ['source', 'model', 'prompt', 'full'].map((key) => optionalTextOf(line, key));
    const theirs = source === 'default' ? `the caption ${full ?? caption}` : `${model}: ${prompt}`;
    if (source !== undefined && theirs !== ours) {
      throw new ReflError(
        'ERR_OPTION',
        `${line.where} comes from ${theirs}; now it would be ${ours}: give another file with --out, or the same options`,
      );
    }
    if ((known.get(image) ?? caption) !== caption)
      throw new ReflError('ERR_DATA', `${line.where}: ${image} has another caption before`);
    known.set(image, caption);
  }
  return new Set(known.keys());
}
