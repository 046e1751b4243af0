import { ReflError } from '../errors.ts';
import { attention } from '../graph/ops/attention.ts';
import { add, affine, clamp, exp } from '../graph/ops/elementwise.ts';
import { reshape, split } from '../graph/ops/layout.ts';
import { recompute, type Tensor } from '../graph/tensor.ts';
import { Conv2d, GroupNorm } from '../nn/layers.ts';
import { Layer, Module } from '../nn/module.ts';
import { type ForwardOptions, Upsample } from './blocks.ts';

/** In the words of the official configurations; other keys are ignored. */
export interface VaeConfig {
  embed_dim: number;
  ddconfig: {
    in_channels: number;
    out_ch: number;
    ch: number;
    /** Width of each level, in units of `ch`. */
    ch_mult: readonly number[];
    num_res_blocks: number;
    z_channels: number;
    /** The encoder gives mean and log-variance, 2 * z_channels: other networks are no AutoencoderKL. */
    double_z?: boolean;
    /** Image size that attn_resolutions counts from. */
    resolution?: number;
    attn_resolutions?: readonly number[];
    /** Groups of every group norm; 32 when left out. */
    num_groups?: number;
  };
}

type DdConfig = VaeConfig['ddconfig'];

const eps = 1e-6;
const conv3 = (inputs: number, outputs: number): Conv2d => new Conv2d(inputs, outputs, 3, { padding: 1 });

/** Two normalised 3x3 convolutions around a shortcut. */
class ResnetBlock extends Layer {
  readonly norm1: GroupNorm;
  readonly conv1: Layer;
  readonly norm2: GroupNorm;
  readonly conv2: Layer;
  readonly nin_shortcut?: Layer;

  constructor(inputs: number, outputs: number, groups: number) {
    super();
    this.norm1 = new GroupNorm(groups, inputs, eps);
    this.conv1 = conv3(inputs, outputs);
    this.norm2 = new GroupNorm(groups, outputs, eps);
    this.conv2 = conv3(outputs, outputs);
    if (inputs !== outputs) this.nin_shortcut = new Conv2d(inputs, outputs, 1);
  }

  forward(x: Tensor): Tensor {
    return this.trace(() => {
      const h = this.conv1.forward(this.norm1.forward(x, true));
      const residual = this.conv2.forward(this.norm2.forward(h, true));
      return add(this.nin_shortcut?.forward(x) ?? x, residual);
    });
  }
}

/** Attention of one head as wide as the image has channels, over all positions. */
class AttnBlock extends Layer {
  readonly norm: GroupNorm;
  readonly q: Layer;
  readonly k: Layer;
  readonly v: Layer;
  readonly proj_out: Layer;

  constructor(channels: number, groups: number) {
    super();
    this.norm = new GroupNorm(groups, channels, eps);
    this.q = new Conv2d(channels, channels, 1);
    this.k = new Conv2d(channels, channels, 1);
    this.v = new Conv2d(channels, channels, 1);
    this.proj_out = new Conv2d(channels, channels, 1);
  }

  forward(x: Tensor): Tensor {
    return this.trace(() => {
      const [n, h, w, c] = x.shape;
      const normed = this.norm.forward(x);
      const tokens = (layer: Layer): Tensor => reshape(layer.forward(normed), [n, h * w, c]);
      const mixed = attention(tokens(this.q), tokens(this.k), tokens(this.v), { heads: 1 });
      return add(x, this.proj_out.forward(reshape(mixed, x.shape)));
    });
  }
}

/** Halves the size by a 3x3 convolution of stride 2 that reads one zero past the right and bottom edges only. */
class Downsample extends Layer {
  readonly conv: Layer;

  constructor(channels: number) {
    super();
    this.conv = new Conv2d(channels, channels, 3, { stride: 2, padding: [0, 0, 1, 1] });
  }

  forward(x: Tensor): Tensor {
    return this.trace(() => this.conv.forward(x));
  }
}

/** A part of an encoder or a decoder that maps an image to the next, and how much of one it looks at: what tiling needs to know. */
export interface Piece {
  forward(x: Tensor): Tensor;
  /** Positions around one that it reads, counted in its input; Infinity where it reads them all. */
  readonly reach: number;
  /** Positions of its output a side for one of its input: 1/2, 1 or 2. */
  readonly scale: number;
}

function pieceOf(layer: Layer): Piece {
  const forward = (x: Tensor): Tensor => layer.forward(x);
  if (layer instanceof ResnetBlock) return { forward, reach: 2, scale: 1 };
  if (layer instanceof AttnBlock) return { forward, reach: Infinity, scale: 1 };
  const scale = layer instanceof Upsample ? 2 : layer instanceof Downsample ? 1 / 2 : 1;
  return { forward, reach: 1, scale };
}

/** The lowest resolution: attention between two residual blocks. */
interface Middle {
  block_1: Layer;
  attn_1: Layer;
  block_2: Layer;
}

/** One resolution. Attention i, where there is any, follows block i. */
interface Level {
  block: Layer[];
  attn: Layer[];
  downsample?: Layer;
  upsample?: Layer;
}

const middle = (ch: number, groups: number): Middle => ({
  block_1: new ResnetBlock(ch, ch, groups),
  attn_1: new AttnBlock(ch, groups),
  block_2: new ResnetBlock(ch, ch, groups),
});

function level(blocks: number, inputs: number, outputs: number, index: number, config: DdConfig): Level {
  const { num_groups = 32, attn_resolutions = [], resolution = 0 } = config;
  const block = Array.from({ length: blocks }, (_, i) => new ResnetBlock(i ? outputs : inputs, outputs, num_groups));
  const attends = attn_resolutions.includes(resolution / 2 ** index);
  return { block, attn: attends ? block.map(() => new AttnBlock(outputs, num_groups)) : [] };
}

const run = (pieces: readonly Piece[], x: Tensor, options: ForwardOptions): Tensor =>
  pieces.reduce((h, piece) => (options.recompute ? recompute(() => piece.forward(h)) : piece.forward(h)), x);

const inOrder = ({ block, attn, downsample, upsample }: Level): Layer[] =>
  [...block.flatMap((layer, i) => [layer, attn[i]]), downsample, upsample].filter((layer) => layer !== undefined);

const through = (mid: Middle): Layer[] => [mid.block_1, mid.attn_1, mid.block_2];

class Encoder extends Module {
  readonly conv_in: Layer;
  readonly down: Level[];
  readonly mid: Middle;
  readonly norm_out: GroupNorm;
  readonly conv_out: Layer;

  constructor(config: DdConfig) {
    super();
    const { ch, ch_mult, num_groups = 32, num_res_blocks } = config;
    this.conv_in = conv3(config.in_channels, ch);
    this.down = ch_mult.map((mult, i) => ({
      ...level(num_res_blocks, ch * (i ? ch_mult[i - 1] : 1), ch * mult, i, config),
      ...(i < ch_mult.length - 1 && { downsample: new Downsample(ch * mult) }),
    }));
    const deepest = ch * ch_mult.at(-1)!;
    this.mid = middle(deepest, num_groups);
    this.norm_out = new GroupNorm(num_groups, deepest, eps);
    this.conv_out = conv3(deepest, 2 * config.z_channels);
  }

  pieces(): Piece[] {
    const out = (x: Tensor): Tensor => this.conv_out.forward(this.norm_out.forward(x, true));
    const blocks = [this.conv_in, ...this.down.flatMap(inOrder), ...through(this.mid)].map(pieceOf);
    return [...blocks, { forward: out, reach: 1, scale: 1 }];
  }

  forward(x: Tensor, options: ForwardOptions): Tensor {
    return this.trace(() => run(this.pieces(), x, options));
  }
}

class Decoder extends Module {
  readonly conv_in: Layer;
  readonly mid: Middle;
  /** The finest resolution first, as in the checkpoint; run from the last. */
  readonly up: Level[];
  readonly norm_out: GroupNorm;
  readonly conv_out: Layer;

  constructor(config: DdConfig) {
    super();
    const { ch, ch_mult, num_groups = 32, num_res_blocks } = config;
    const deepest = ch * ch_mult.at(-1)!;
    this.conv_in = conv3(config.z_channels, deepest);
    this.mid = middle(deepest, num_groups);
    this.up = ch_mult.map((mult, i) => ({
      ...level(num_res_blocks + 1, ch * (ch_mult[i + 1] ?? mult), ch * mult, i, config),
      ...(i > 0 && { upsample: new Upsample(ch * mult) }),
    }));
    this.norm_out = new GroupNorm(num_groups, ch * ch_mult[0], eps);
    this.conv_out = conv3(ch * ch_mult[0], config.out_ch);
  }

  pieces(): Piece[] {
    const out = (x: Tensor): Tensor => this.conv_out.forward(this.norm_out.forward(x, true));
    const levels = [...this.up].reverse().flatMap(inOrder);
    const blocks = [this.conv_in, ...through(this.mid), ...levels].map(pieceOf);
    return [...blocks, { forward: out, reach: 1, scale: 1 }];
  }

  forward(z: Tensor, options: ForwardOptions): Tensor {
    return this.trace(() => run(this.pieces(), z, options));
  }
}

/** The latent-diffusion autoencoder; keys are those of official checkpoints below `first_stage_model.`. */
export class AutoencoderKL extends Module {
  readonly encoder: Encoder;
  readonly decoder: Decoder;
  readonly quant_conv: Layer;
  readonly post_quant_conv: Layer;

  constructor({ embed_dim, ddconfig }: VaeConfig) {
    super();
    if (ddconfig.double_z === false) {
      throw new ReflError(
        'ERR_OPTION',
        'AutoencoderKL needs ddconfig.double_z: it encodes to a mean and a log-variance',
      );
    }
    this.encoder = new Encoder(ddconfig);
    this.decoder = new Decoder(ddconfig);
    this.quant_conv = new Conv2d(2 * ddconfig.z_channels, 2 * embed_dim, 1);
    this.post_quant_conv = new Conv2d(embed_dim, ddconfig.z_channels, 1);
  }

  /**
   * @param image [N, H, W, 3] in [-1, 1]; H and W divide by 2 once a level but the last
   * @returns the latent's moments [N, h, w, 2 * embed_dim], unscaled: see {@link posterior}
   */
  encode(image: Tensor, options: ForwardOptions = {}): Tensor {
    return this.trace(() => this.quant_conv.forward(this.encoder.forward(image, options)));
  }

  /**
   * @param z latent [N, h, w, embed_dim], without diffusion's scale factor
   * @returns image [N, H, W, 3], about [-1, 1]
   */
  decode(z: Tensor, options: ForwardOptions = {}): Tensor {
    return this.trace(() => this.decoder.forward(this.post_quant_conv.forward(z), options));
  }
}

/** What {@link AutoencoderKL.encode} runs, in order. */
export function encodingPieces({ encoder, quant_conv }: AutoencoderKL): Piece[] {
  return [...encoder.pieces(), { forward: (x) => quant_conv.forward(x), reach: 0, scale: 1 }];
}

/** What {@link AutoencoderKL.decode} runs, in order. */
export function decodingPieces({ decoder, post_quant_conv }: AutoencoderKL): Piece[] {
  return [{ forward: (z) => post_quant_conv.forward(z), reach: 0, scale: 1 }, ...decoder.pieces()];
}

/** The normal distribution that {@link AutoencoderKL.encode} describes. Log-variance is limited to [-30, 20]. */
export function posterior(encoded: Tensor): { mean: Tensor; logvar: Tensor; std: Tensor } {
  const [mean, raw] = split(encoded, 2, -1);
  const logvar = clamp(raw, -30, 20);
  return { mean, logvar, std: exp(affine(logvar, 0.5)) };
}
