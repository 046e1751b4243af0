import { ReflError } from '../errors.ts';
import { l2Normalize } from '../graph/ops/compose.ts';
import { cosineSimilarity } from '../graph/ops/reward.ts';
import { input, type Tensor } from '../graph/tensor.ts';
import type { ImageSource } from '../image/picture.ts';
import type { CLIP, CLIPConfig } from '../models/clip.ts';
import { concatenated } from '../numbers.ts';
import { type Device, openDevice, type Parameters, type Program } from '../runtime/index.ts';
import { ClipTokenizer } from '../text/tokenizer.ts';
import { loadWeights } from '../weights/load.ts';
import { openClip } from './clip_file.ts';
import { checkPreprocessing, Pictures, type Preprocessing } from './pictures.ts';

export interface RewardModelOptions {
  /**
   * Weights of HPS v2, HPS v2.1 or FaceRewardModel, as published or as safetensors, under open_clip's or transformers' names; or
   * a safetensors file of another CLIP, whose configuration (open_clip's JSON) stands in the metadata as `config`.
   */
  readonly weights: string;
  /** `tokenizer.json`, a list of merges, or a folder with one of them. */
  readonly tokenizer: string;
  /** `hps` by default: the official one, antialiased. `-plain` is what older torchvision versions made of the same code. */
  readonly preprocessing?: Preprocessing;
  /** As {@link openDevice} takes it: `auto` (the default), `cpu`, `cuda`, `cuda:N`. */
  readonly device?: string;
  /** Threads of a CPU device; as many as the machine runs at once by default. */
  readonly threads?: number;
}

export interface ScoreOptions {
  /** Pictures that go through the model at once, 1 by default. */
  readonly batch?: number;
  readonly signal?: AbortSignal;
  /** Called with the fraction done, from 0 to 1. */
  readonly onProgress?: (fraction: number) => void;
}

export interface Score {
  /** Cosine of the features of picture and caption, which HPS reports: from -1 to 1, about 0.2 to 0.3 for good pictures. */
  readonly score: number;
  /** Whether the caption was too long and lost its last tokens. */
  readonly shortened: boolean;
}

/** A caption's feature, of length 1. */
interface Text {
  feature: Float32Array;
  shortened: boolean;
}

/** Features of captions that are kept, of 4 KB each. */
const mostTexts = 4096;

/**
 * Scores pictures against captions.
 *
 *     using model = await RewardModel.load({ weights: 'HPS_v2.1.safetensors', tokenizer: 'tokenizer.json' });
 *     const [result] = await model.score(['portrait.jpg'], ['a portrait of a woman']);
 */
export class RewardModel {
  readonly #clip: CLIP;
  readonly #config: CLIPConfig;
  readonly #tokenizer: ClipTokenizer;
  readonly #pictures: Pictures;
  readonly #path: string;
  readonly #device: Device;
  readonly #parameters: Parameters;
  /** By the number of pictures; 0 is the text tower's, for one caption. */
  readonly #programs = new Map<number, Promise<Program>>();
  readonly #texts = new Map<string, Text>();

  private constructor(
    path: string,
    clip: CLIP,
    config: CLIPConfig,
    tokenizer: ClipTokenizer,
    pictures: Pictures,
    device: Device,
  ) {
    this.#path = path;
    this.#clip = clip;
    this.#config = config;
    this.#tokenizer = tokenizer;
    this.#pictures = pictures;
    this.#device = device;
    this.#parameters = device.parameters();
  }

  /**
   * Opens a device and loads a model. Throws ERR_OPTION, ERR_DEVICE, ERR_FILE and ERR_WEIGHTS, naming the file; a tokenizer
   * of another size than the model's table is refused too.
   */
  static async load({
    weights,
    tokenizer,
    preprocessing = 'hps',
    device = 'auto',
    threads,
  }: RewardModelOptions): Promise<RewardModel> {
    checkPreprocessing(preprocessing);
    if (device === 'null') throw new ReflError('ERR_DEVICE', 'the device null computes nothing: use cpu');
    const words = await ClipTokenizer.load(tokenizer);
    const { clip, config, file } = await openClip(weights);
    const rows = config.text_cfg.vocab_size;
    if (words.size !== rows) {
      throw new ReflError('ERR_OPTION', `${tokenizer} has ${words.size} tokens, ${weights} was trained with ${rows}`);
    }
    const opened = await openDevice(device, { threads });
    const pictures = new Pictures(opened, clip.visual.imageSize[0], preprocessing);
    const model = new RewardModel(weights, clip, config, words, pictures, opened);
    try {
      await loadWeights(model.#parameters, clip, file, { frozen: true });
      return model;
    } catch (error) {
      model.dispose();
      throw error;
    }
  }

  /**
   * Scores each picture for its caption; one caption alone serves all pictures. Throws ERR_OPTION where they do not fit
   * together, ERR_FILE and ERR_IMAGE for a picture, ERR_WEIGHTS where a score is not finite.
   */
  async score(
    pictures: readonly ImageSource[],
    captions: readonly string[],
    options: ScoreOptions = {},
  ): Promise<Score[]> {
    return (await this.scoreMany(pictures, captions, options)).map((result) => {
      if (result.status === 'rejected') throw result.reason;
      return result.value;
    });
  }

  /** As {@link score}, but a picture that cannot be scored spoils no other: one settled result each, in order. */
  async scoreMany(
    pictures: readonly ImageSource[],
    captions: readonly string[],
    { batch = 1, signal, onProgress }: ScoreOptions = {},
  ): Promise<PromiseSettledResult<Score>[]> {
    if (!(Number.isInteger(batch) && batch > 0)) {
      throw new ReflError('ERR_OPTION', `batch must be a whole number of at least 1, got ${batch}`);
    }
    if (captions.length !== 1 && captions.length !== pictures.length) {
      const got = `${captions.length} captions`;
      throw new ReflError('ERR_OPTION', `${pictures.length} pictures need as many captions, or one, got ${got}`);
    }
    const results: PromiseSettledResult<Score>[] = [];
    while (results.length < pictures.length) {
      const first = results.length;
      const chunk = pictures.slice(first, first + batch);
      const texts: Text[] = [];
      for (const i of chunk.keys())
        texts.push(await this.#text(captions[captions.length === 1 ? 0 : first + i], signal));
      const images = await Promise.allSettled(chunk.map((picture) => this.#pictures.prepare(picture)));
      results.push(...(await this.#compare(images, texts, signal)));
      onProgress?.(results.length / pictures.length);
    }
    return results;
  }

  /** Scores the pictures that there are. */
  async #compare(
    images: readonly PromiseSettledResult<Float32Array>[],
    texts: readonly Text[],
    signal?: AbortSignal,
  ): Promise<PromiseSettledResult<Score>[]> {
    const there = images.flatMap((image, i) =>
      image.status === 'fulfilled' ? [{ image: image.value, text: texts[i] }] : [],
    );
    if (!there.length) return images as PromiseRejectedResult[];
    const program = await this.#program(there.length);
    const feeds = {
      images: concatenated(there.map(({ image }) => image)),
      texts: concatenated(there.map(({ text }) => text.feature)),
    };
    const scores = [...(await program.run(feeds, { signal })).scores];
    return images.map((image, i) => {
      if (image.status === 'rejected') return image;
      const score = scores.shift()!;
      if (Number.isFinite(score)) return { status: 'fulfilled', value: { score, shortened: texts[i].shortened } };
      const why = `a score came out as ${score}: the weights are unusable`;
      return { status: 'rejected', reason: new ReflError('ERR_WEIGHTS', `${this.#path}: ${why}`) };
    });
  }

  async #text(caption: string, signal?: AbortSignal): Promise<Text> {
    const known = this.#texts.get(caption);
    if (known) return known;
    const { ids, shortened } = this.#tokenizer.encode([caption], this.#config.text_cfg.context_length);
    const { feature } = await (await this.#program(0)).run({ ids }, { signal });
    const text = { feature: feature as Float32Array, shortened: shortened.length > 0 };
    if (this.#texts.size >= mostTexts) this.#texts.clear();
    this.#texts.set(caption, text);
    return text;
  }

  #program(pictures: number): Promise<Program> {
    const known = this.#programs.get(pictures);
    if (known) return known;
    const { embed_dim, text_cfg } = this.#config;
    const outputs: Record<string, Tensor> = {};
    if (pictures) {
      const feature = this.#clip.visual.forward(input('images', [pictures, ...this.#clip.visual.imageSize, 3]));
      outputs.scores = cosineSimilarity(feature, input('texts', [pictures, embed_dim]));
    } else {
      outputs.feature = l2Normalize(this.#clip.pooled(input('ids', [1, text_cfg.context_length], 'i32')));
    }
    const compiling = this.#device.compile({ outputs }, { parameters: this.#parameters });
    this.#programs.set(pictures, compiling);
    return compiling;
  }

  /** Frees the model and its device. Safe to call twice. */
  dispose(): void {
    for (const program of this.#programs.values()) {
      program.then(
        (compiled) => compiled.dispose(),
        () => {},
      );
    }
    this.#programs.clear();
    this.#pictures.dispose();
    this.#parameters.dispose();
    this.#device.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
