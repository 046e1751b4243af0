// Transformer blocks whose attention looks within windows (Liu et al. 2021), as SwinIR and MANIQA have them.
import type { DType } from '../graph/dtype.ts';
import { gelu } from '../graph/ops/activation.ts';
import { attention } from '../graph/ops/attention.ts';
import { add, cast } from '../graph/ops/elementwise.ts';
import { embedding } from '../graph/ops/embedding.ts';
import { reshape, roll, split, transpose, windowPartition, windowReverse } from '../graph/ops/layout.ts';
import { constant, type Tensor } from '../graph/tensor.ts';
import { LayerNorm, Linear } from '../nn/layers.ts';
import { Buffer, type Init, Layer, Module, Parameter } from '../nn/module.ts';

/** PyTorch's trunc_normal_ cuts at +-2, which is 100 deviations here: a plain normal distribution. */
const init: Init = { kind: 'normal', std: 0.02 };

/** What windows of one image size share: where each pair of tokens looks up its bias, and who may see whom. */
export interface Windows {
  /** i32 [window^4] rows of the bias table. */
  index: Tensor;
  /** [windows, 1, window^2, window^2], 0 or -100: for shifted windows. */
  mask: Tensor | undefined;
}

/** Row of the bias table for each pair of tokens of a window, by their relative position: [window^2, window^2]. */
function relativePositionIndex(window: number): Int32Array {
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
function shiftMask([height, width]: readonly [number, number], window: number, shift: number): Float32Array {
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

/** The windows of images of `size` tokens [height, width], shifted or not. */
export function windowsOf(size: readonly [number, number], window: number, shift: number, dtype: DType): Windows {
  const tokens = window * window;
  const index = constant(relativePositionIndex(window), [tokens * tokens], 'i32');
  return { index, mask: shift ? maskOf(size, window, shift, dtype) : undefined };
}

/**
 * The mask of {@link shiftMask}, looked up: windows differ only in whether they are the last of their row, of their column, of
 * both or of neither, and those four make up an image of two windows a side.
 */
function maskOf([height, width]: readonly [number, number], window: number, shift: number, dtype: DType): Tensor {
  const [rows, columns, tokens] = [height / window, width / window, window * window];
  const kinds = constant(shiftMask([2 * window, 2 * window], window, shift), [4, tokens * tokens], 'f32');
  const kindOf = (w: number): number =>
    2 * Number(Math.floor(w / columns) === rows - 1) + Number(w % columns === columns - 1);
  const each = constant(
    Int32Array.from({ length: rows * columns }, (_, w) => kindOf(w)),
    [rows * columns],
    'i32',
  );
  return reshape(embedding(cast(kinds, dtype), each), [rows * columns, 1, tokens, tokens]);
}

export interface SwinBlockConfig {
  channels: number;
  /** Width of the MLP inside. */
  hidden: number;
  heads: number;
  /** Tokens a side of a window, and by how many the windows are shifted. */
  window: number;
  shift: number;
  /** Tokens [height, width] that the stored mask fits. */
  grid: readonly [number, number];
}

/** Window attention and an MLP over tokens [N, H, W, C], each normalised first and added to its input. */
export class SwinBlock extends Module {
  readonly attn_mask?: Buffer;
  readonly norm1: LayerNorm;
  readonly attn: WindowAttention;
  readonly norm2: LayerNorm;
  readonly mlp: Mlp;
  readonly #window: number;
  readonly #shift: number;

  constructor({ channels, hidden, heads, window, shift, grid: [h, w] }: SwinBlockConfig) {
    super();
    this.#window = window;
    this.#shift = shift;
    if (shift) {
      const shape = [(h / window) * (w / window), window ** 2, window ** 2];
      this.attn_mask = new Buffer(shape, 'f32', () => shiftMask([h, w], window, shift));
    }
    this.norm1 = new LayerNorm(channels);
    this.attn = new WindowAttention(channels, window, heads);
    this.norm2 = new LayerNorm(channels);
    this.mlp = new Mlp(channels, hidden);
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
