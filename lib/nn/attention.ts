import { geglu } from '../graph/ops/activation.ts';
import { attention } from '../graph/ops/attention.ts';
import { add } from '../graph/ops/elementwise.ts';
import type { Tensor } from '../graph/tensor.ts';
import { LayerNorm, Linear } from './layers.ts';
import { type Layer, Module } from './module.ts';

/** Multi-head attention of tokens [N, L, C] over a context [N, M, contextDim], or over themselves without one. */
export class CrossAttention extends Module {
  readonly heads: number;
  readonly to_q: Layer;
  readonly to_k: Layer;
  readonly to_v: Layer;
  readonly to_out: Layer[];

  constructor(channels: number, heads: number, headDim: number, contextDim = channels) {
    super();
    const inner = heads * headDim;
    this.heads = heads;
    this.to_q = new Linear(channels, inner, { bias: false });
    this.to_k = new Linear(contextDim, inner, { bias: false });
    this.to_v = new Linear(contextDim, inner, { bias: false });
    this.to_out = [new Linear(inner, channels)];
  }

  forward(x: Tensor, context = x): Tensor {
    return this.trace(() => {
      const [q, k, v] = [this.to_q.forward(x), this.to_k.forward(context), this.to_v.forward(context)];
      return this.to_out[0].forward(attention(q, k, v, { heads: this.heads }));
    });
  }
}

/** A linear layer to twice the width, whose first half is gated by the GELU of its second. */
class Geglu extends Module {
  readonly proj: Layer;

  constructor(channels: number, width: number) {
    super();
    this.proj = new Linear(channels, 2 * width);
  }

  forward(x: Tensor): Tensor {
    return this.trace(() => geglu(this.proj.forward(x)));
  }
}

/** Two linear layers around a GEGLU of `4 * channels`. */
export class FeedForward extends Module {
  readonly net: { 0: Geglu; 2: Layer };

  constructor(channels: number) {
    super();
    this.net = { 0: new Geglu(channels, 4 * channels), 2: new Linear(4 * channels, channels) };
  }

  forward(x: Tensor): Tensor {
    return this.trace(() => this.net[2].forward(this.net[0].forward(x)));
  }
}

/** Pre-norm self attention, attention over a context, and a feed-forward, each added to its input: [N, L, C]. */
export class TransformerBlock extends Module {
  readonly attn1: CrossAttention;
  readonly ff: FeedForward;
  readonly attn2: CrossAttention;
  readonly norm1: LayerNorm;
  readonly norm2: LayerNorm;
  readonly norm3: LayerNorm;

  constructor(channels: number, heads: number, headDim: number, contextDim: number) {
    super();
    this.attn1 = new CrossAttention(channels, heads, headDim);
    this.ff = new FeedForward(channels);
    this.attn2 = new CrossAttention(channels, heads, headDim, contextDim);
    this.norm1 = new LayerNorm(channels);
    this.norm2 = new LayerNorm(channels);
    this.norm3 = new LayerNorm(channels);
  }

  forward(x: Tensor, context: Tensor): Tensor {
    return this.trace(() => {
      const self = add(x, this.attn1.forward(this.norm1.forward(x)));
      const crossed = add(self, this.attn2.forward(this.norm2.forward(self), context));
      return add(crossed, this.ff.forward(this.norm3.forward(crossed)));
    });
  }
}
