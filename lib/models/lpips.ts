import { add, affine, cast, div, relu, sub } from '../graph/ops/elementwise.ts';
import { reshape } from '../graph/ops/layout.ts';
import { maxPool2d } from '../graph/ops/pool.ts';
import { directionDistance } from '../graph/ops/reward.ts';
import type { Tensor } from '../graph/tensor.ts';
import { constant } from '../graph/tensor.ts';
import { Conv2d } from '../nn/layers.ts';
import { Buffer, Module, Parameter } from '../nn/module.ts';

export interface LPIPSConfig {
  /** Widths of the trunk's convolutions, with an M where it halves the image: torchvision's notation. */
  vgg_channels: readonly (number | 'M')[];
}

export const vgg16: LPIPSConfig = {
  vgg_channels: [64, 64, 'M', 128, 128, 'M', 256, 256, 256, 'M', 512, 512, 512, 'M', 512, 512, 512, 'M'],
};

/** Mean and deviation of ImageNet's colours, for images in [-1, 1]. */
const shift = [-0.03, -0.088, -0.188];
const scale = [0.458, 0.448, 0.45];

/** Convolutions of one resolution by their place in torchvision's sequence. */
type Slice = Record<number, Conv2d>;

/** Which convolutions lie between two halvings; each is followed by a ReLU, which has a place too. */
function slicesOf(channels: LPIPSConfig['vgg_channels']): { slices: Slice[]; widths: number[] } {
  const slices: Slice[] = [{}];
  const widths: number[] = [];
  let [place, width] = [0, 3];
  for (const next of channels.slice(0, channels.lastIndexOf('M'))) {
    if (next === 'M') {
      widths.push(width);
      slices.push({});
      place += 1;
    } else {
      slices.at(-1)![place] = new Conv2d(width, next, 3, { padding: 1 });
      width = next;
      place += 2;
    }
  }
  return { slices, widths: [...widths, width] };
}

/**
 * LPIPS 0.1 on VGG16 (Zhang et al. 2018): how different two images look, from the features of five resolutions. Keys are
 * those of the official module; the files it comes in are read by lib/metrics/lpips.ts.
 */
export class LPIPS extends Module {
  readonly scaling_layer: { shift: Buffer; scale: Buffer };
  readonly net: Record<`slice${number}`, Slice>;
  readonly [lin: `lin${number}`]: { model: { 1: { weight: Parameter } } };
  readonly #slices: Slice[];

  constructor({ vgg_channels }: LPIPSConfig = vgg16) {
    super();
    const { slices, widths } = slicesOf(vgg_channels);
    this.#slices = slices;
    const colours = (values: number[]): Buffer => new Buffer([1, 3, 1, 1], 'f32', () => Float32Array.from(values));
    this.scaling_layer = { shift: colours(shift), scale: colours(scale) };
    this.net = Object.fromEntries(slices.map((slice, i) => [`slice${i + 1}`, slice]));
    const lins = widths.map((width, i) => {
      const init = { kind: 'uniform', bound: 1 / Math.sqrt(width) } as const;
      const weight = new Parameter([1, width, 1, 1], init, { statistics: true });
      return [`lin${i}`, { model: { 1: { weight } } }] as const;
    });
    Object.assign(this, Object.fromEntries(lins));
  }

  /**
   * Features of images after the last ReLU of each resolution.
   *
   * @param x [N, H, W, 3] in [-1, 1]
   * @returns one [N, h, w, C] a resolution, the finest first
   */
  features(x: Tensor): Tensor[] {
    return this.trace(() => {
      const colours = (values: number[]): Tensor => cast(constant(Float32Array.from(values), [3], 'f32'), x.dtype);
      let h = div(sub(x, colours(shift)), colours(scale));
      return this.#slices.map((slice, i) => {
        if (i) h = maxPool2d(h, { kernel: [2, 2] });
        for (const conv of Object.values(slice)) h = relu(conv.forward(h));
        return h;
      });
    });
  }

  /**
   * Distance of each image of `a` to that of `b`, and the share of each resolution.
   *
   * @param a [N, H, W, 3] in [-1, 1], or with `normalize` in [0, 1]; at least 16 pixels a side. `b` alike
   * @returns `distance` [N] and one [N] a resolution, whose sum it is; in float32 at least
   */
  forward(a: Tensor, b: Tensor, { normalize = false } = {}): { distance: Tensor; layers: Tensor[] } {
    const signed = (x: Tensor): Tensor => (normalize ? affine(x, 2, -1) : x);
    const [ours, theirs] = [this.features(signed(a)), this.features(signed(b))];
    return this.trace(() => {
      const layers = ours.map((feature, i) => {
        const weight = this[`lin${i}`].model[1].weight.value;
        return directionDistance(feature, theirs[i], reshape(weight, [weight.size]));
      });
      return { distance: layers.reduce((x, y) => add(x, y)), layers };
    });
  }
}
