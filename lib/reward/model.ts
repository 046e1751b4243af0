import { ReflError } from '../errors.ts';
import { cosineSimilarity, l2Normalize } from '../graph/ops/compose.ts';
import { affine, cast, div } from '../graph/ops/elementwise.ts';
import { input, type Tensor } from '../graph/tensor.ts';
import { decodeImage, type ImageSource, nameOf } from '../image/picture.ts';
import { CLIP, type CLIPConfig, vitH14 } from '../models/clip.ts';
import { type Device, evaluate, openDevice, type Parameters, type Program } from '../runtime/index.ts';
import { ClipTokenizer } from '../text/tokenizer.ts';
import { loadWeights } from '../weights/load.ts';
import { openSafetensors, type SafetensorsFile } from '../weights/safetensors.ts';
import { diffusionRewardPreprocess, hpsPreprocess, padToSquare, type Resampling } from './preprocess.ts';

/** How a picture [1, H, W, 3] in [0, 1] becomes what the image tower takes, of side `size`. */
type Preprocess = (x: Tensor, size: number) => Tensor;

/** HPS leaves a picture whose longer side fits already as narrow as it is, and its tower then fails: it is padded here. */
const hps =
  (resampling: Resampling): Preprocess =>
  (x, size) =>
    hpsPreprocess(Math.max(x.shape[1], x.shape[2]) === size ? padToSquare(x, size) : x, { size, resampling });

const diffusionReward =
  (antialias: boolean): Preprocess =>
  (x, size) =>
    diffusionRewardPreprocess(affine(x, 2, -1), { size, antialias });

/** What `preprocessing` may be; see ./preprocess.ts. */
export const preprocessings = {
  hps: hps('antialias'),
  'hps-plain': hps('plain'),
  'hps-pil': hps('pil'),
  diffusionreward: diffusionReward(true),
  'diffusionreward-plain': diffusionReward(false),
} satisfies Record<string, Preprocess>;

export type Preprocessing = keyof typeof preprocessings;

export interface RewardModelOptions {
  /**
   * A safetensors file of HPS v2, HPS v2.1 or FaceRewardModel, under their own names; or of another CLIP, whose
   * configuration (open_clip's JSON) stands in the metadata as `config`.
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
  readonly #preprocess: Preprocess;
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
    preprocess: Preprocess,
    device: Device,
  ) {
    this.#path = path;
    this.#clip = clip;
    this.#config = config;
    this.#tokenizer = tokenizer;
    this.#preprocess = preprocess;
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
    if (!Object.hasOwn(preprocessings, preprocessing)) {
      const known = Object.keys(preprocessings).join(', ');
      throw new ReflError('ERR_OPTION', `unknown preprocessing ${preprocessing}: expected ${known}`);
    }
    if (device === 'null') throw new ReflError('ERR_DEVICE', 'the device null computes nothing: use cpu');
    const words = await ClipTokenizer.load(tokenizer);
    const file = await openSafetensors(weights);
    const { clip, config } = construct(file);
    const rows = config.text_cfg.vocab_size;
    if (words.size !== rows) {
      throw new ReflError('ERR_OPTION', `${tokenizer} has ${words.size} tokens, ${weights} was trained with ${rows}`);
    }
    const opened = await openDevice(device, { threads });
    const model = new RewardModel(weights, clip, config, words, preprocessings[preprocessing], opened);
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
      const images = await Promise.allSettled(chunk.map((picture) => this.#image(picture)));
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

  /** A picture as the image tower takes it. */
  async #image(source: ImageSource): Promise<Float32Array> {
    const { width, height, data } = await decodeImage(source);
    const [size] = this.#clip.visual.imageSize;
    const picture = div(cast(input('picture', [1, height, width, 3], 'u8'), 'f32'), 255);
    let y: Tensor;
    try {
      y = this.#preprocess(picture, size);
    } catch (cause) {
      throw new ReflError('ERR_IMAGE', `${nameOf(source)}: ${(cause as Error).message}`, { cause });
    }
    if (y.shape[1] !== size || y.shape[2] !== size) {
      const why = `this preprocessing takes squares, the picture has ${width}x${height} pixels: use hps, or crop it`;
      throw new ReflError('ERR_IMAGE', `${nameOf(source)}: ${why}`);
    }
    const { image } = await evaluate(this.#device, { image: y }, { picture: data });
    return image as Float32Array;
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
    this.#parameters.dispose();
    this.#device.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

function concatenated(parts: readonly Float32Array[]): Float32Array {
  const whole = new Float32Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Builds the model that a file's metadata describes, ViT-H/14 where it describes none; it may come from anyone. */
function construct({ path, metadata, entries }: SafetensorsFile): { clip: CLIP; config: CLIPConfig } {
  if (metadata.config === undefined) return { clip: new CLIP(vitH14), config: vitH14 };
  try {
    const config = JSON.parse(metadata.config) as CLIPConfig;
    // Every block holds several tensors.
    if (!(config.vision_cfg.layers + config.text_cfg.layers <= entries.size))
      throw new Error('it has more layers than the file');
    const clip = new CLIP(config);
    const [height, width] = clip.visual.imageSize;
    if (height !== width) throw new Error(`it takes images of ${height}x${width}, no squares`);
    clip.visual.forward(input('images', [1, height, width, 3]));
    clip.pooled(input('ids', [1, config.text_cfg.context_length], 'i32'));
    return { clip, config };
  } catch (cause) {
    const why = (cause as Error).message;
    throw new ReflError('ERR_WEIGHTS', `${path}: the metadata key config describes no CLIP: ${why}`, { cause });
  }
}
