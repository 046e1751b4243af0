import { setTimeout as sleep } from 'node:timers/promises';
import OpenAI from 'openai';
import { ReflError } from '../errors.ts';
import { decodeImage, type ImageSource, sharpOf } from '../image/picture.ts';
import { type Describer, defaultPrompt, EndpointError } from './captions.ts';

export interface EndpointOptions {
  /** Base address of an OpenAI-compatible API, such as `http://127.0.0.1:8080/v1`. */
  readonly endpoint: string;
  readonly model: string;
  readonly prompt?: string;
  /** Sent as bearer token where there is one. */
  readonly key?: string;
  /** Seconds for one attempt. */
  readonly timeout?: number;
  /** Attempts after the first. */
  readonly retries?: number;
  /** Seconds before the second attempt; the wait doubles from then on. */
  readonly firstWait?: number;
}

/** Longest side that is sent, in pixels: vision models see no more, and hosted ones charge by it. */
const sentSide = 768;
/** Tokens asked for: about three times what a caption may have, so that models without an end stop. */
const answerTokens = 256;
const longestAnswer = 4000;
const longestBody = 4e6;
/** Seconds. */
const longestWait = 60;
/** Answers that tell to try again; everything of 500 and above does too. */
const busy = [408, 409, 425, 429];

/** A vision model behind an OpenAI-compatible endpoint. Safe to use many times at once. */
export class CaptionEndpoint implements Describer {
  readonly model: string;
  readonly prompt: string;
  readonly #url: string;
  readonly #client: OpenAI;
  readonly #retries: number;
  readonly #firstWait: number;
  /** When the next attempt may begin: an endpoint that is told to be overloaded is left alone by all. */
  #resume = 0;

  /** Throws ERR_OPTION where the address is none. */
  constructor({ endpoint, model, key, ...options }: EndpointOptions) {
    const { prompt = defaultPrompt, timeout = 120, retries = 4, firstWait = 1 } = options;
    if (!/^https?:$/.test(URL.canParse(endpoint) ? new URL(endpoint).protocol : '')) {
      throw new ReflError('ERR_OPTION', `endpoint must be an http(s) address, got ${endpoint}`);
    }
    this.model = model;
    this.prompt = prompt;
    this.#url = endpoint;
    this.#retries = retries;
    this.#firstWait = firstWait;
    this.#client = new OpenAI({
      baseURL: endpoint,
      // The client insists on one, and would look for others among the environment's variables.
      apiKey: key ?? 'none',
      adminAPIKey: null,
      organization: null,
      project: null,
      timeout: timeout * 1000,
      // Its own waits cannot be interrupted.
      maxRetries: 0,
      logLevel: 'off',
      fetch: fetchWhole,
    });
  }

  /**
   * What a picture shows, on one line. Throws an {@link EndpointError} once all attempts have failed, ERR_IMAGE and ERR_FILE
   * where the picture cannot be read, and the signal's reason.
   */
  async describe(image: ImageSource, signal?: AbortSignal): Promise<string> {
    const content: OpenAI.ChatCompletionContentPart[] = [
      { type: 'text', text: this.prompt },
      { type: 'image_url', image_url: { url: await dataUrl(image) } },
    ];
    const messages: OpenAI.ChatCompletionMessageParam[] = [{ role: 'user', content }];
    const request = { model: this.model, messages, max_tokens: answerTokens };
    for (let attempt = 0; ; attempt++) {
      while (this.#resume > performance.now()) await pause(this.#resume - performance.now(), signal);
      try {
        return captionIn(await untilAborted(signal, (own) => this.#client.chat.completions.create(request, own)));
      } catch (error) {
        signal?.throwIfAborted();
        const { why, again, always } = explain(error);
        if (!again || attempt >= this.#retries) {
          const tries = attempt ? ` (${attempt + 1} attempts)` : '';
          throw new EndpointError(`${this.#url}: ${why}${tries}`, always, { cause: error });
        }
        await this.#wait(error, attempt, signal);
      }
    }
  }

  /** Waits as long as the endpoint says, or twice as long at each attempt. */
  async #wait(error: unknown, attempt: number, signal?: AbortSignal): Promise<void> {
    const { status, headers } = error instanceof OpenAI.APIError ? error : {};
    const asked = secondsIn(headers?.get('retry-after'));
    if (asked !== undefined && asked > longestWait) {
      const later = `it asks to come back in ${Math.ceil(asked)} s: run this again then`;
      throw new EndpointError(`${this.#url}: ${later}`, true, { cause: error });
    }
    // Jitter keeps those that failed together from coming back together.
    const own = Math.min(longestWait, this.#firstWait * 2 ** attempt) * (0.75 + Math.random() / 4);
    const milliseconds = 1000 * (asked ?? own);
    if (status === 429 || status === 503) this.#resume = Math.max(this.#resume, performance.now() + milliseconds);
    else await pause(milliseconds, signal);
  }
}

async function pause(milliseconds: number, signal?: AbortSignal): Promise<void> {
  await sleep(milliseconds, undefined, { signal }).catch(() => signal?.throwIfAborted());
}

/** Hands a signal of its own to `work`: the client never stops listening to what it was given. */
async function untilAborted<T>(
  signal: AbortSignal | undefined,
  work: (options: { signal: AbortSignal }) => Promise<T>,
): Promise<T> {
  signal?.throwIfAborted();
  const own = new AbortController();
  const abort = (): void => own.abort(signal?.reason);
  signal?.addEventListener('abort', abort);
  try {
    return await work({ signal: own.signal });
  } finally {
    signal?.removeEventListener('abort', abort);
  }
}

/** A `retry-after` header: seconds, or a date. */
function secondsIn(header: string | null | undefined): number | undefined {
  if (!header) return undefined;
  const seconds = /^\d+(\.\d+)?$/.test(header.trim()) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return Number.isNaN(seconds) ? undefined : Math.max(0, seconds);
}

/** A fetch that is done when the body is there, so that the client's time limit holds for all of it, and the body has an end. */
async function fetchWhole(...request: Parameters<typeof fetch>): Promise<Response> {
  const response = await fetch(...request);
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of response.body ?? []) {
    bytes += chunk.length;
    if (bytes > longestBody) throw new Nonsense(`its answer has more than ${longestBody / 1e6} MB`);
    chunks.push(chunk);
  }
  const { status, statusText, headers } = response;
  return new Response(bytes ? Buffer.concat(chunks) : null, { status, statusText, headers });
}

/** An answer that holds no caption. */
class Nonsense extends Error {}

function captionIn(answer: unknown): string {
  const { choices, error } = (answer ?? {}) as {
    choices?: { message?: { content?: unknown; refusal?: unknown } }[];
    error?: { message?: unknown };
  };
  if (error) throw new Nonsense(`it answers with an error: ${excerpt(error.message ?? error)}`);
  const message = Array.isArray(choices) ? choices[0]?.message : undefined;
  if (message?.refusal) throw new Nonsense(`the model refuses: ${excerpt(message.refusal)}`);
  const text = message?.content;
  if (typeof text !== 'string') throw new Nonsense(`its answer is no chat completion: ${excerpt(answer)}`);
  const caption = text
    .replace(/[\p{Cc}\s]+/gu, ' ')
    .trim()
    .replace(/^"(.*)"$/, '$1');
  if (!/\p{L}/u.test(caption)) throw new Nonsense(`its caption has no words: ${excerpt(text)}`);
  if (caption.length > longestAnswer) throw new Nonsense(`its caption has ${caption.length} characters`);
  return caption;
}

/** What a status other than 200 comes with. */
function detailOf({ error, message }: { error: unknown; message: string }): unknown {
  const { message: detail } = (error ?? {}) as { message?: unknown };
  return typeof detail === 'string' ? detail : (error ?? message);
}

function excerpt(value: unknown): string {
  const text = (typeof value === 'string' ? value : (JSON.stringify(value) ?? 'nothing')).replace(/[\p{Cc}\s]+/gu, ' ');
  return text.length > 160 ? `${text.slice(0, 160)}...` : text || 'nothing';
}

/** What went wrong, whether another attempt may help, and whether other pictures would fare alike. */
function explain(error: unknown): { why: string; again: boolean; always: boolean } {
  const cause = error instanceof OpenAI.APIConnectionError ? error.cause : error;
  if (cause instanceof Nonsense) return { why: cause.message, again: true, always: false };
  if (error instanceof OpenAI.APIConnectionTimeoutError)
    return { why: 'no answer in time (--timeout gives it longer)', again: true, always: false };
  if (error instanceof OpenAI.APIConnectionError) {
    const code = innermost(error);
    return broken.test(code)
      ? { why: `the connection broke off (${code})`, again: true, always: false }
      : { why: `it cannot be reached (${code}): is it running?`, again: true, always: true };
  }
  if (error instanceof OpenAI.APIError && error.status) {
    const { status } = error;
    const why = `it answers ${status}${hints[status] ? `, ${hints[status]}` : ''}: ${excerpt(detailOf(error))}`;
    // Of the answers that blame the request, 400, 413 and 422 may be about one picture.
    const ours = status < 500 && ![400, 413, 422, ...busy].includes(status);
    return { why, again: status >= 500 || busy.includes(status), always: ours || status === 429 };
  }
  return { why: `its answer is not JSON (${(error as Error).message})`, again: true, always: false };
}

/** Codes of connections that were there: perhaps a picture brought the server down. */
const broken = /^(ECONNRESET|EPIPE|UND_ERR_SOCKET|ERR_STREAM_PREMATURE_CLOSE)$/;

const hints: Readonly<Record<number, string>> = {
  401: 'it wants a key, or another one (--key-variable)',
  403: 'it does not allow this (--key-variable)',
  404: 'the address or the model is not known there',
  429: 'too many requests (a smaller --concurrency may help)',
};

function innermost(error: unknown): string {
  const { cause, code, message } = error as Error & { code?: string };
  return cause instanceof Error ? innermost(cause) : (code ?? message);
}

async function dataUrl(image: ImageSource): Promise<string> {
  const small = sharpOf(await decodeImage(image)).resize(sentSide, sentSide, {
    fit: 'inside',
    withoutEnlargement: true,
  });
  return `data:image/jpeg;base64,${(await small.jpeg({ quality: 92 }).toBuffer()).toString('base64')}`;
}
