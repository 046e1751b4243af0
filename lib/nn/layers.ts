import { ReflError } from '../errors.ts';
import { silu as activate } from '../graph/ops/activation.ts';
import { conv2d } from '../graph/ops/conv2d.ts';
import { add, affine, cast, mul, rsqrt, sub } from '../graph/ops/elementwise.ts';
import { embedding } from '../graph/ops/embedding.ts';
import { linear } from '../graph/ops/matmul.ts';
import { groupNorm, layerNorm } from '../graph/ops/norm.ts';
import type { Tensor } from '../graph/tensor.ts';
import { Buffer, type Init, Layer, Module, Parameter } from './module.ts';
import { givenGroupNorm } from './statistics.ts';

export interface LinearOptions {
  bias?: boolean;
  /** Of the weight; the bias then starts at zero. PyTorch's default uniform for both when left out. */
  init?: Init;
}

/** PyTorch's default for convolutions and linear layers: uniform within 1/sqrt(fan in), weight and bias alike. */
const fanIn = (count: number): Init => ({ kind: 'uniform', bound: 1 / Math.sqrt(count) });

/** y = x W^T + b over the last axis. `weight` is [out, in]. */
export class Linear extends Layer {
  readonly weight: Parameter;
  readonly bias?: Parameter;

  constructor(inputs: number, outputs: number, { bias = true, init }: LinearOptions = {}) {
    super();
    const fan = fanIn(inputs);
    this.weight = new Parameter([outputs, inputs], init ?? fan);
    if (bias) this.bias = new Parameter([outputs], init ? 'zeros' : fan);
  }

  forward(x: Tensor): Tensor {
    return this.trace(() => linear(x, this.weight.beside(x), this.bias?.beside(x)));
  }
}

export interface ConvOptions extends LinearOptions {
  stride?: number;
  /** Zeros around the image: one number, or [top, left, bottom, right]. */
  padding?: number | readonly [number, number, number, number];
}

/** Convolution of NHWC images. `weight` is [out, in, kernel height, kernel width]. */
export class Conv2d extends Layer {
  readonly weight: Parameter;
  readonly bias?: Parameter;
  readonly stride: number;
  readonly padding: readonly [number, number, number, number];

  /** @param kernel one number for a square, or [height, width] */
  constructor(inputs: number, outputs: number, kernel: number | readonly [number, number], options: ConvOptions = {}) {
    super();
    const [height, width] = typeof kernel === 'number' ? [kernel, kernel] : kernel;
    const fan = fanIn(inputs * height * width);
    const { bias = true, init, stride = 1, padding = 0 } = options;
    this.weight = new Parameter([outputs, inputs, height, width], init ?? fan);
    if (bias) this.bias = new Parameter([outputs], init ? 'zeros' : fan);
    this.stride = stride;
    this.padding = typeof padding === 'number' ? [padding, padding, padding, padding] : padding;
  }

  forward(x: Tensor): Tensor {
    const { stride, padding } = this;
    return this.trace(() => conv2d(x, this.weight.beside(x), this.bias?.beside(x), { stride, padding }));
  }
}

/** Group normalisation over NHWC images (or [N, L, C] tokens), with SiLU fused behind it on request. */
export class GroupNorm extends Layer {
  readonly weight: Parameter;
  readonly bias: Parameter;
  readonly groups: number;
  readonly eps: number;

  constructor(groups: number, channels: number, eps: number) {
    super();
    if (channels % groups) {
      throw new ReflError(
        'ERR_OPTION',
        `${channels} channels do not split into ${groups} groups: choose another num_groups`,
      );
    }
    this.weight = new Parameter([channels], 'ones', { statistics: true });
    this.bias = new Parameter([channels], 'zeros', { statistics: true });
    this.groups = groups;
    this.eps = eps;
  }

  forward(x: Tensor, silu = false): Tensor {
    const { groups, eps } = this;
    return this.trace(() => {
      const y = givenGroupNorm(x, this.weight.value, this.bias.value, { groups, eps });
      if (y) return silu ? activate(y) : y;
      return groupNorm(x, this.weight.value, this.bias.value, { groups, eps, silu });
    });
  }
}

/** Layer normalisation over the last axis. */
export class LayerNorm extends Layer {
  readonly weight: Parameter;
  readonly bias: Parameter;
  readonly eps: number;

  constructor(channels: number, eps = 1e-5) {
    super();
    this.weight = new Parameter([channels], 'ones', { statistics: true });
    this.bias = new Parameter([channels], 'zeros', { statistics: true });
    this.eps = eps;
  }

  forward(x: Tensor): Tensor {
    return this.trace(() => layerNorm(x, this.weight.value, this.bias.value, { eps: this.eps }));
  }
}

/**
 * Batch normalisation over the last axis by its stored statistics, as in evaluation: (x - mean) / sqrt(variance + eps), then
 * the affine map. Statistics of a batch are never taken, so nothing here trains them.
 */
export class BatchNorm extends Layer {
  readonly weight: Parameter;
  readonly bias: Parameter;
  readonly running_mean: Parameter;
  readonly running_var: Parameter;
  readonly num_batches_tracked = new Buffer([], 'i32', () => Int32Array.of(0));
  readonly eps: number;

  constructor(channels: number, eps = 1e-5) {
    super();
    const parameter = (init: Init): Parameter => new Parameter([channels], init, { statistics: true });
    this.weight = parameter('ones');
    this.bias = parameter('zeros');
    this.running_mean = parameter('zeros');
    this.running_var = parameter('ones');
    this.eps = eps;
  }

  forward(x: Tensor): Tensor {
    return this.trace(() => {
      const scale = mul(this.weight.value, rsqrt(affine(this.running_var.value, 1, this.eps)));
      const shift = sub(this.bias.value, mul(this.running_mean.value, scale));
      return add(mul(x, cast(scale, x.dtype)), cast(shift, x.dtype));
    });
  }
}

/** Rows of a table [rows, channels] looked up by i32 indices of any shape. */
export class Embedding extends Module {
  readonly weight: Parameter;

  constructor(rows: number, channels: number, std = 1) {
    super();
    this.weight = new Parameter([rows, channels], { kind: 'normal', std });
  }

  forward(indices: Tensor): Tensor {
    return this.trace(() => embedding(this.weight.value, indices));
  }
}
