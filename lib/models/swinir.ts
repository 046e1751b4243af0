import { ReflError } from '../errors.ts';
import { gelu } from '../graph/ops/activation.ts';
import { attention } from '../graph/ops/attention.ts';
import { add, affine, cast, leakyRelu, sub } from '../graph/ops/elementwise.ts';
import { embedding } from '../graph/ops/embedding.ts';
import {
  pad,
  pixelUnshuffle,
  reshape,
  roll,
  slice,
  split,
  transpose,
  windowPartition,
  windowReverse,
} from '../graph/ops/layout.ts';
import { resize } from '../graph/ops/resample.ts';
import { constant, recompute, type Tensor } from '../graph/tensor.ts';
import { Conv2d, LayerNorm, Linear } from '../nn/layers.ts';
import { Buffer, type Init, Layer, Module, Parameter } from '../nn/module.ts';
import type { ForwardOptions } from './blocks.ts';

/** In the words of the official configurations; other keys are ignored. */
export interface SwinIRConfig {
  /** Tokens a side that the stored masks fit; other sizes work as well, with masks of their own. */
  img_size: number | readonly [number, number];
  in_chans: number;
  embed_dim: number;
  /** Transformer blocks of each residual group. */
  depths: readonly number[];
  /** Attention heads of each residual group. */
  num_heads: readonly number[];
  window_size: number;
  /** Hidden width of the MLPs, in units of embed_dim. */
  mlp_ratio: number;
  /** Upscaling from tokens to the output: 2, 4 or 8. */
  sf: number;
  img_range?: number;
  /** How a residual group ends: one 3x3 convolution, or three with a bottleneck. */
  resi_connection?: '1conv' | '3conv';
  /** Folds blocks of unshuffle_scale^2 pixels into the channels of one token first. */
  unshuffle?: boolean;
  unshuffle_scale?: number | null;
}

/** Channels of the upsampling part. */
const features = 64;
/** Mean colour of the super-resolution training set DIV2K, subtracted from RGB images. */
const rgbMean = [0.4488, 0.4371, 0.404];
/** PyTorch's trunc_normal_ cuts at +-2, which is 100 deviations here: a plain normal distribution. */
const init: Init = { kind: 'normal', std: 0.02 };

const conv3 = (inputs: number, outputs: number): Conv2d => new Conv2d(inputs, outputs, 3, { padding: 1 });

/** What windows of one image size share: where each pair of tokens looks up its bias, and who may see whom. */
interface Windows {
  /** i32 [window^4] rows of the bias table. */
  index: Tensor;
  /** [windows, 1, window^2, window^2], 0 or -100: for shifted windows. */
  mask: Tensor | undefined;
}

/** Row of the bias table for each pair of tokens of a window, by their relative position: [window^2, window^2]. */
export function relativePositionIndex(window: number): Int32Array {
  const tokens = window * window;
  return Int32Array.from({ length: tokens * tokens }, (_, k) => {
    const [i, j] = [Math.floor(k / tokens), k % tokens];
    const dy = Math.floor(i / window) - Math.floor(j / window) + window - 1;
    const dx = (i % window) - (j % window) + window - 1;
    return dy * (2 * window - 1) + dx;
  });
}

/**
 * Mask of windows shifted by `shift` over [height, width] tokens: -100 between tokens that the cyclic shift brought
 * together from opposite edges, else 0. [windows, window^2, window^2].
 */
export function shiftMask([height, width]: readonly [number, number], window: number, shift: number): Float32Array {
  const region = (p: number, size: number): number => (p < size - window ? 0 : p < size - shift ? 1 : 2);
  const [columns, tokens] = [width / window, window * window];
  const mask = new Float32Array((height / window) * columns * tokens * tokens);
  const regions = new Int32Array(tokens);
  for (let at = 0, w = 0; at < mask.length; w++) {
    for (let t = 0; t < tokens; t++) {
      const y = Math.floor(w / columns) * window + Math.floor(t / window);
      regions[t] = 3 * region(y, height) + region((w % columns) * window + (t % window), width);
    }
    for (const a of regions) for (const b of regions) mask[at++] = a === b ? 0 : -100;
  }
  return mask;
}

/** Attention within windows [windows, window^2, C], with a learned bias for each relative position. */
class WindowAttention extends Module {
  readonly relative_position_bias_table: Parameter;
  readonly relative_position_index: Buffer;
  readonly qkv: Layer;
  readonly proj: Layer;
  readonly #heads: number;

  constructor(channels: number, window: number, heads: number) {
    super();
    this.#heads = heads;
    this.relative_position_bias_table = new Parameter([(2 * window - 1) ** 2, heads], init);
    this.relative_position_index = new Buffer([window ** 2, window ** 2], 'i32', () => relativePositionIndex(window));
    this.qkv = new Linear(channels, 3 * channels, { init });
    this.proj = new Linear(channels, channels, { init });
  }

  forward(x: Tensor, { index, mask }: Windows): Tensor {
    return this.trace(() => {
      const [q, k, v] = split(this.qkv.forward(x), 3, -1);
      const rows = transpose(embedding(this.relative_position_bias_table.beside(x), index), [1, 0]);
      const relative = reshape(rows, [1, this.#heads, x.shape[1], x.shape[1]]);
      const bias = mask ? add(relative, mask) : relative;
      return this.proj.forward(attention(q, k, v, { heads: this.#heads, bias }));
    });
  }
}

class Mlp extends Layer {
  readonly fc1: Layer;
  readonly fc2: Layer;

  constructor(channels: number, hidden: number) {
    super();
    this.fc1 = new Linear(channels, hidden, { init });
    this.fc2 = new Linear(hidden, channels, { init });
  }

  forward(x: Tensor): Tensor {
    return this.trace(() => this.fc2.forward(gelu(this.fc1.forward(x))));
  }
}

/** Window attention and an MLP over tokens [N, H, W, C], each normalised first and added to its input. */
class SwinBlock extends Module {
  readonly attn_mask?: Buffer;
  readonly norm1: LayerNorm;
  readonly attn: WindowAttention;
  readonly norm2: LayerNorm;
  readonly mlp: Mlp;
  readonly #window: number;
  readonly #shift: number;

  constructor(config: SwinIRConfig, heads: number, { window, shift }: { window: number; shift: number }) {
    super();
    const { embed_dim } = config;
    const [h, w] = stored(config);
    this.#window = window;
    this.#shift = shift;
    if (shift) {
      const shape = [(h / window) * (w / window), window ** 2, window ** 2];
      this.attn_mask = new Buffer(shape, 'f32', () => shiftMask([h, w], window, shift));
    }
    this.norm1 = new LayerNorm(embed_dim);
    this.attn = new WindowAttention(embed_dim, window, heads);
    this.norm2 = new LayerNorm(embed_dim);
    this.mlp = new Mlp(embed_dim, Math.floor(embed_dim * config.mlp_ratio));
  }

  forward(x: Tensor, { index, mask }: Windows): Tensor {
    return this.trace(() => {
      const [window, shift] = [this.#window, this.#shift];
      const normed = this.norm1.forward(x);
      const moved = shift ? roll(normed, [0, -shift, -shift, 0]) : normed;
      const mixed = this.attn.forward(windowPartition(moved, window), { index, mask: shift ? mask : undefined });
      const whole = windowReverse(mixed, window, [x.shape[1], x.shape[2]]);
      const attended = add(x, shift ? roll(whole, [0, shift, shift, 0]) : whole);
      return add(attended, this.mlp.forward(this.norm2.forward(attended)));
    });
  }
}

/** Three convolutions through a quarter of the channels. */
class Bottleneck extends Layer {
  readonly 0: Layer;
  readonly 2: Layer;
  readonly 4: Layer;

  constructor(channels: number) {
    super();
    const inner = Math.floor(channels / 4);
    this[0] = conv3(channels, inner);
    this[2] = new Conv2d(inner, inner, 1);
    this[4] = conv3(inner, channels);
  }

  forward(x: Tensor): Tensor {
    return this.trace(() => {
      const h = this[2].forward(leakyRelu(this[0].forward(x), 0.2));
      return this[4].forward(leakyRelu(h, 0.2));
    });
  }
}

const groupEnd = ({ embed_dim, resi_connection = '1conv' }: SwinIRConfig): Layer =>
  resi_connection === '3conv' ? new Bottleneck(embed_dim) : conv3(embed_dim, embed_dim);

/** A residual group: transformer blocks, then a convolution, added to the input. */
class ResidualGroup extends Module {
  readonly residual_group: { blocks: SwinBlock[] };
  readonly conv: Layer;

  constructor(config: SwinIRConfig, group: number) {
    super();
    const { window, shift } = windowing(config);
    const blocks = Array.from(
      { length: config.depths[group] },
      (_, i) => new SwinBlock(config, config.num_heads[group], { window, shift: i % 2 ? shift : 0 }),
    );
    this.residual_group = { blocks };
    this.conv = groupEnd(config);
  }

  forward(x: Tensor, windows: Windows, options: ForwardOptions): Tensor {
    return this.trace(() => {
      const body = this.residual_group.blocks.reduce(
        (h, block) => (options.recompute ? recompute(() => block.forward(h, windows)) : block.forward(h, windows)),
        x,
      );
      return add(x, this.conv.forward(body));
    });
  }
}

/** Token grid [height, width] of the stored masks. */
const stored = ({ img_size }: SwinIRConfig): readonly [number, number] =>
  typeof img_size === 'number' ? [img_size, img_size] : img_size;

/** The official class neither shifts nor exceeds the image where the configured size has one window only. */
function windowing(config: SwinIRConfig): { window: number; shift: number } {
  const smallest = Math.min(...stored(config));
  if (smallest <= config.window_size) return { window: smallest, shift: 0 };
  return { window: config.window_size, shift: Math.floor(config.window_size / 2) };
}

/** DiffBIR's first stage: SwinIR on folded pixels, upsampled by nearest neighbours and convolutions. */
export class SwinIR extends Module {
  readonly conv_first: Layer | { 1: Layer };
  readonly patch_embed: { norm: LayerNorm };
  readonly layers: ResidualGroup[];
  readonly norm: LayerNorm;
  readonly conv_after_body: Layer;
  readonly conv_before_upsample: { 0: Layer };
  readonly conv_up1: Layer;
  readonly conv_up2?: Layer;
  readonly conv_up3?: Layer;
  readonly conv_hr: Layer;
  readonly conv_last: Layer;
  readonly #config: SwinIRConfig;
  /** Pixels a side of one token. */
  readonly #fold: number;

  constructor(config: SwinIRConfig) {
    super();
    refuseUnsupported(config);
    const { in_chans, embed_dim } = config;
    this.#config = config;
    this.#fold = config.unshuffle ? (config.unshuffle_scale ?? config.sf) : 1;
    const first = conv3(in_chans * this.#fold ** 2, embed_dim);
    this.conv_first = config.unshuffle ? { 1: first } : first;
    this.patch_embed = { norm: new LayerNorm(embed_dim) };
    this.layers = config.depths.map((_, group) => new ResidualGroup(config, group));
    this.norm = new LayerNorm(embed_dim);
    this.conv_after_body = groupEnd(config);
    this.conv_before_upsample = { 0: conv3(embed_dim, features) };
    this.conv_up1 = conv3(features, features);
    if (config.sf >= 4) this.conv_up2 = conv3(features, features);
    if (config.sf === 8) this.conv_up3 = conv3(features, features);
    this.conv_hr = conv3(features, features);
    this.conv_last = conv3(features, in_chans);
  }

  /**
   * @param image [N, H, W, in_chans] in [0, 1], any size of at least half a window
   * @returns [N, H * s, W * s, in_chans], about [0, 1]; s is sf / unshuffle_scale, 1 for DiffBIR's networks
   */
  forward(image: Tensor, options: ForwardOptions = {}): Tensor {
    return this.trace(() => {
      const { in_chans, img_range = 1, sf } = this.#config;
      const [n, height, width] = image.shape;
      const unit = windowing(this.#config).window * this.#fold;
      const gap = (size: number): number => (unit - (size % unit)) % unit;
      const padded = pad(image, [0, 0, 0, 0], [0, gap(height), gap(width), 0], 'reflect');
      const mean = floats(in_chans === 3 ? rgbMean : new Array(in_chans).fill(0), [in_chans], image.dtype);
      const folded = pixelUnshuffle(times(sub(padded, mean), img_range), this.#fold);
      const shallow = (this.conv_first instanceof Layer ? this.conv_first : this.conv_first[1]).forward(folded);
      const body = add(shallow, this.conv_after_body.forward(this.body(shallow, options)));
      const out = add(times(this.upsample(body), 1 / img_range), mean);
      return slice(out, [0, 0, 0, 0], [n, (height * sf) / this.#fold, (width * sf) / this.#fold, in_chans]);
    });
  }

  private body(x: Tensor, options: ForwardOptions): Tensor {
    const windows = this.windows(x);
    const tokens = this.patch_embed.norm.forward(x);
    return this.norm.forward(this.layers.reduce((h, group) => group.forward(h, windows, options), tokens));
  }

  private windows(x: Tensor): Windows {
    const { window, shift } = windowing(this.#config);
    const [, h, w] = x.shape;
    const tokens = window * window;
    const index = constant(relativePositionIndex(window), [tokens * tokens], 'i32');
    if (!shift) return { index, mask: undefined };
    const count = (h / window) * (w / window);
    return { index, mask: floats(shiftMask([h, w], window, shift), [count, 1, tokens, tokens], x.dtype) };
  }

  private upsample(x: Tensor): Tensor {
    let h = leakyRelu(this.conv_before_upsample[0].forward(x), 0.01);
    for (const conv of [this.conv_up1, this.conv_up2, this.conv_up3]) {
      if (conv) h = leakyRelu(conv.forward(resize(h, [h.shape[1] * 2, h.shape[2] * 2], { mode: 'nearest' })), 0.2);
    }
    return this.conv_last.forward(leakyRelu(this.conv_hr.forward(h), 0.2));
  }
}

const times = (x: Tensor, factor: number): Tensor => (factor === 1 ? x : affine(x, factor));

const floats = (values: ArrayLike<number>, shape: number[], dtype: Tensor['dtype']): Tensor =>
  cast(constant(Float32Array.from(values), shape, 'f32'), dtype);

/** Switches of the official class that would give another network; each with the values built here. */
const fixed: Readonly<Record<string, readonly unknown[]>> = {
  upsampler: ['nearest+conv'],
  sf: [2, 4, 8],
  resi_connection: ['1conv', '3conv'],
  patch_size: [1],
  patch_norm: [true],
  qkv_bias: [true],
  qk_scale: [null],
  ape: [false],
};

function refuseUnsupported(config: object): void {
  for (const [key, value] of Object.entries(config)) {
    if (fixed[key] && value !== undefined && !fixed[key].includes(value)) {
      throw new ReflError('ERR_OPTION', `the SwinIR option ${key} must be ${fixed[key].join(' or ')}, got ${value}`);
    }
  }
}
