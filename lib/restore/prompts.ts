import { ReflError } from '../errors.ts';
import { cast } from '../graph/ops/elementwise.ts';
import { input } from '../graph/tensor.ts';
import type { LatentDiffusion } from '../models/latent.ts';
import { concatenated } from '../numbers.ts';
import type { RunOptions } from '../runtime/index.ts';
import type { ClipTokenizer } from '../text/tokenizer.ts';
import type { Stages } from './stages.ts';

/** Features of texts that are kept, of 300 KB each. */
const mostTexts = 64;

/** Texts as a latent diffusion model reads them. Without a tokenizer the empty text alone is known. */
export class Prompts {
  readonly #stages: Stages;
  readonly #model: LatentDiffusion;
  readonly #tokenizer: ClipTokenizer | undefined;
  readonly #features = new Map<string, Float32Array>();

  /** Throws ERR_OPTION where the tokenizer knows other tokens than the model's table has rows. */
  constructor(stages: Stages, model: LatentDiffusion, tokenizer?: ClipTokenizer) {
    const rows = model.clip.model.token_embedding.weight.value.shape[0];
    if (tokenizer && tokenizer.size !== rows) {
      const why = `the tokenizer has ${tokenizer.size} tokens, the model's text encoder was trained with ${rows}`;
      throw new ReflError('ERR_OPTION', why);
    }
    this.#stages = stages;
    this.#model = model;
    this.#tokenizer = tokenizer;
  }

  /** Features of texts one after another, [texts, length, channels]. Throws ERR_OPTION where a tokenizer is missing. */
  async features(texts: readonly string[], { signal }: RunOptions = {}): Promise<Float32Array> {
    const parts: Float32Array[] = [];
    for (const text of texts) parts.push(await this.#one(text, signal));
    return concatenated(parts);
  }

  /** Throws ERR_OPTION on a text that cannot be understood. */
  check(text: string): void {
    this.#tokens(text);
  }

  /** Whether a text loses its end, for the text encoder reads so many tokens and no more. */
  isShortened(text: string): boolean {
    return this.#tokens(text).shortened;
  }

  async #one(text: string, signal?: AbortSignal): Promise<Float32Array> {
    const known = this.#features.get(text);
    if (known) return known;
    const [length] = this.#model.textShape;
    const trace = () => ({ features: cast(this.#model.text(input('ids', [1, length], 'i32')), 'f32') });
    const { ids } = this.#tokens(text);
    const features = (await this.#stages.run('text', trace, { ids }, { signal })).features as Float32Array;
    if (this.#features.size >= mostTexts) this.#features.clear();
    this.#features.set(text, features);
    return features;
  }

  #tokens(text: string): { ids: Int32Array; shortened: boolean } {
    const [length] = this.#model.textShape;
    if (this.#tokenizer) {
      const { ids, shortened } = this.#tokenizer.encode([text], length);
      return { ids, shortened: shortened.length > 0 };
    }
    if (text.trim()) {
      const files = 'tokenizer.json or merges.txt of CLIP beside the weights';
      const how = `put ${files}, or name one with tokenizer; an empty prompt with a guidance of 1 needs none`;
      throw new ReflError('ERR_OPTION', `a prompt needs a tokenizer: ${how}`);
    }
    // The border tokens are the last two of CLIP's vocabulary.
    const rows = this.#model.clip.model.token_embedding.weight.value.shape[0];
    const ids = new Int32Array(length);
    ids.set([rows - 2, rows - 1]);
    return { ids, shortened: false };
  }
}
