import { ReflError } from '../errors.ts';
import { add, affine, cast, leakyRelu, sub } from '../graph/ops/elementwise.ts';
import { pad, pixelUnshuffle, slice } from '../graph/ops/layout.ts';
import { resize } from '../graph/ops/resample.ts';
import { constant, recompute, type Tensor } from '../graph/tensor.ts';
import { Conv2d, LayerNorm } from '../nn/layers.ts';
import { Layer, Module } from '../nn/module.ts';
import type { ForwardOptions } from './blocks.ts';
import { SwinBlock, type Windows, windowsOf } from './swin.ts';

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

const conv3 = (inputs: number, outputs: number): Conv2d => new Conv2d(inputs, outputs, 3, { padding: 1 });

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
    const channels = config.embed_dim;
    const hidden = Math.floor(channels * config.mlp_ratio);
    const heads = config.num_heads[group];
    const blocks = Array.from(
      { length: config.depths[group] },
      (_, i) => new SwinBlock({ channels, hidden, heads, window, shift: i % 2 ? shift : 0, grid: stored(config) }),
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
  /** Images whose sides are multiples of this are taken as they are; others are continued by their mirror image. */
  readonly multiple: number;
  readonly #config: SwinIRConfig;
  /** Pixels a side of one token. */
  readonly #fold: number;

  constructor(config: SwinIRConfig) {
    super();
    refuseUnsupported(config);
    const { in_chans, embed_dim } = config;
    this.#config = config;
    this.#fold = config.unshuffle ? (config.unshuffle_scale ?? config.sf) : 1;
    this.multiple = windowing(config).window * this.#fold;
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
      const gap = (size: number): number => Math.ceil(size / this.multiple) * this.multiple - size;
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
    const { window, shift } = windowing(this.#config);
    const windows = windowsOf([x.shape[1], x.shape[2]], window, shift, x.dtype);
    const tokens = this.patch_embed.norm.forward(x);
    return this.norm.forward(this.layers.reduce((h, group) => group.forward(h, windows, options), tokens));
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
