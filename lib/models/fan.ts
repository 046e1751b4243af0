import { add, cast, clamp, greater, relu, where } from '../graph/ops/elementwise.ts';
import { broadcastTo, concat, slice } from '../graph/ops/layout.ts';
import { avgPool2d } from '../graph/ops/pool.ts';
import { resize } from '../graph/ops/resample.ts';
import { constant, type Tensor } from '../graph/tensor.ts';
import { BatchNorm, Conv2d, type ConvOptions } from '../nn/layers.ts';
import { Layer, Module } from '../nn/module.ts';

/**
 * Where each pixel of a square lies, [1, size, size, 3]: down and across from -1 to 1, and the distance from the middle over
 * the largest. The first channel, which the official code calls x, runs down.
 */
export function coordinates(size: number): Tensor {
  const { fround } = Math;
  const along = Array.from({ length: size }, (_, i) => fround(fround(fround(i / (size - 1)) * 2) - 1));
  const distances = along.flatMap((y) => along.map((x) => fround(Math.sqrt(fround(fround(y * y) + fround(x * x))))));
  const farthest = Math.max(...along.map((v) => fround(Math.sqrt(fround(2 * fround(v * v))))));
  const values = Float32Array.from({ length: size * size * 3 }, (_, k) => {
    const pixel = Math.floor(k / 3);
    return [along[Math.floor(pixel / size)], along[pixel % size], distances[pixel] / farthest][k % 3];
  });
  return constant(values, [1, size, size, 3], 'f32');
}

/** A convolution that also sees {@link coordinates}, and those of a boundary where one has been found. */
class CoordConv extends Module {
  readonly conv: Conv2d;
  readonly #size: number;

  constructor(size: number, inputs: number, outputs: number, kernel: number, options: ConvOptions = {}) {
    super();
    this.#size = size;
    this.conv = new Conv2d(inputs, outputs, kernel, options);
  }

  /** @param boundary [N, size, size, 1]: how much each pixel belongs to the face's outlines */
  forward(x: Tensor, boundary?: Tensor): Tensor {
    return this.trace(() => {
      const size = this.#size;
      const n = x.shape[0];
      const places = cast(broadcastTo(coordinates(size), [n, size, size, 3]), x.dtype);
      if (!boundary) return this.conv.forward(concat([x, places], -1));
      const near = greater(clamp(boundary, 0, 1), 0.05);
      const outline = where(near, slice(places, [0, 0, 0, 0], [n, size, size, 2]), 0);
      return this.conv.forward(concat([x, places, outline], -1));
    });
  }
}

const conv3x3 = (inputs: number, outputs: number): Conv2d =>
  new Conv2d(inputs, outputs, 3, { padding: 1, bias: false });

/** Three convolutions, each with its norm before it, whose outputs side by side are added to the input. */
class ConvBlock extends Layer {
  readonly bn1: BatchNorm;
  readonly conv1: Conv2d;
  readonly bn2: BatchNorm;
  readonly conv2: Conv2d;
  readonly bn3: BatchNorm;
  readonly conv3: Conv2d;
  readonly downsample?: { 0: BatchNorm; 2: Conv2d };

  constructor(inputs: number, outputs: number) {
    super();
    const [half, quarter] = [outputs / 2, outputs / 4];
    this.bn1 = new BatchNorm(inputs);
    this.conv1 = conv3x3(inputs, half);
    this.bn2 = new BatchNorm(half);
    this.conv2 = conv3x3(half, quarter);
    this.bn3 = new BatchNorm(quarter);
    this.conv3 = conv3x3(quarter, quarter);
    if (inputs !== outputs) {
      this.downsample = { 0: new BatchNorm(inputs), 2: new Conv2d(inputs, outputs, 1, { bias: false }) };
    }
  }

  forward(x: Tensor): Tensor {
    return this.trace(() => {
      const first = this.conv1.forward(relu(this.bn1.forward(x)));
      const second = this.conv2.forward(relu(this.bn2.forward(first)));
      const third = this.conv3.forward(relu(this.bn3.forward(second)));
      const short = this.downsample ? this.downsample[2].forward(relu(this.downsample[0].forward(x))) : x;
      return add(concat([first, second, third], -1), short);
    });
  }
}

const halved = (x: Tensor): Tensor => avgPool2d(x, { kernel: [2, 2] });

const width = 256;
const depth = 4;

/** Four resolutions down and up again, with a side path at each. */
class HourGlass extends Module {
  readonly coordconv: CoordConv;
  readonly [block: `b${number}_${string}`]: ConvBlock;

  constructor(first: boolean) {
    super();
    this.coordconv = new CoordConv(FAN.mapSize, width + (first ? 3 : 5), width, 1);
    const names = Array.from({ length: depth }, (_, i) => [1, 2, 3].map((place) => `b${place}_${i + 1}`)).flat();
    Object.assign(this, Object.fromEntries([...names, 'b2_plus_1'].map((name) => [name, new ConvBlock(width, width)])));
  }

  forward(x: Tensor, boundary?: Tensor): Tensor {
    return this.trace(() => this.#level(depth, this.coordconv.forward(x, boundary)));
  }

  #level(level: number, x: Tensor): Tensor {
    const low = this[`b2_${level}`].forward(halved(x));
    const inner = level > 1 ? this.#level(level - 1, low) : this.b2_plus_1.forward(low);
    const high = resize(this[`b3_${level}`].forward(inner), [x.shape[1], x.shape[2]], { mode: 'nearest' });
    return add(this[`b1_${level}`].forward(x), high);
  }
}

const points = 98;
const stacks = 4;

/**
 * The face alignment network of Adaptive Wing loss (Wang et al. 2019): four hourglasses in a row, each of which predicts a heat map
 * for each of WFLW's 98 landmarks and one for the outlines that guides the next. Keys are those of `WFLW_4HG.pth`.
 */
export class FAN extends Module {
  /** Pixels a side of the pictures it takes, and of its maps. */
  static readonly size = 256;
  static readonly mapSize = 64;
  static readonly points = points;
  readonly conv1 = new CoordConv(FAN.size, 3 + 3, 64, 7, { stride: 2, padding: 3 });
  readonly bn1 = new BatchNorm(64);
  readonly conv2 = new ConvBlock(64, 128);
  readonly conv3 = new ConvBlock(128, 128);
  readonly conv4 = new ConvBlock(128, width);
  readonly [hourglass: `m${number}`]: HourGlass;
  readonly [top: `top_m_${number}`]: ConvBlock;
  readonly [norm: `bn_end${number}`]: BatchNorm;
  readonly [layer: `${'conv_last' | 'l' | 'bl' | 'al'}${number}`]: Conv2d;

  constructor() {
    super();
    const modules: Record<string, Module> = {};
    for (let i = 0; i < stacks; i++) {
      modules[`m${i}`] = new HourGlass(i === 0);
      modules[`top_m_${i}`] = new ConvBlock(width, width);
      modules[`conv_last${i}`] = new Conv2d(width, width, 1);
      modules[`bn_end${i}`] = new BatchNorm(width);
      modules[`l${i}`] = new Conv2d(width, points + 1, 1);
      if (i === stacks - 1) continue;
      modules[`bl${i}`] = new Conv2d(width, width, 1);
      modules[`al${i}`] = new Conv2d(points + 1, width, 1);
    }
    Object.assign(this, modules);
  }

  /**
   * @param faces [N, 256, 256, 3] in [0, 1]
   * @returns the maps of each hourglass, [N, 64, 64, 99]: the landmarks', then the outlines'. The last ones count
   */
  forward(faces: Tensor): Tensor[] {
    return this.trace(() => {
      const start = relu(this.bn1.forward(this.conv1.forward(faces)));
      let x = this.conv4.forward(this.conv3.forward(halved(this.conv2.forward(start))));
      const maps: Tensor[] = [];
      for (let i = 0; i < stacks; i++) {
        const last = maps.at(-1);
        const [n, h, w] = x.shape;
        const boundary = last && slice(last, [0, 0, 0, points], [n, h, w, 1]);
        const top = this[`top_m_${i}`].forward(this[`m${i}`].forward(x, boundary));
        const features = relu(this[`bn_end${i}`].forward(this[`conv_last${i}`].forward(top)));
        const map = this[`l${i}`].forward(features);
        maps.push(map);
        if (i < stacks - 1) x = add(add(x, this[`bl${i}`].forward(features)), this[`al${i}`].forward(map));
      }
      return maps;
    });
  }
}
