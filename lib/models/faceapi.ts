// The face networks of the npm package @vladmandic/face-api 1.7.15 (MIT), as modules. Layer names are those of its weight
// manifests; lib/models/faceapi_weights.ts folds the stored tensors into plain convolutions.
import { add, affine, clamp, exp, leakyRelu, mul, relu, sigmoid, sub } from '../graph/ops/elementwise.ts';
import { concat, pad, reshape, slice, split } from '../graph/ops/layout.ts';
import { avgPool2d, globalAvgPool, maxPool2d } from '../graph/ops/pool.ts';
import { constant, type Tensor } from '../graph/tensor.ts';
import { Conv2d, Linear } from '../nn/layers.ts';
import { Module } from '../nn/module.ts';

/** Boxes and scores of a detector's anchors, of which most hold no face. */
export interface Detections {
  /** [anchors, 4]: left, top, right, bottom as fractions of the input square. */
  readonly boxes: Tensor;
  /** [anchors], 0 to 1. */
  readonly scores: Tensor;
}

/** TensorFlow's "same" padding at stride 2: nothing before an even extent, one pixel after it. */
const after = [0, 0, 1, 1] as const;

const values = (numbers: readonly number[]): Tensor => constant(Float32Array.from(numbers), [numbers.length], 'f32');

/** (x - mean) / 255 for pixels x of 0 to 255, per channel R, G, B. */
const normalise = (x: Tensor, mean: readonly number[]): Tensor => affine(sub(x, values(mean)), 1 / 255);

/** MobileNet v1's convolutions: stride and output channels of each depthwise and pointwise pair. */
const mobilenet = [
  [1, 64],
  [2, 128],
  [1, 128],
  [2, 256],
  [1, 256],
  [2, 512],
  [1, 512],
  [1, 512],
  [1, 512],
  [1, 512],
  [1, 512],
  [2, 1024],
  [1, 1024],
] as const;
/** Kernel, stride, input and output channels of the layers that shrink the features further. */
const extras = [
  [1, 1, 1024, 256],
  [3, 2, 256, 512],
  [1, 1, 512, 128],
  [3, 2, 128, 256],
  [1, 1, 256, 128],
  [3, 2, 128, 256],
  [1, 1, 256, 64],
  [3, 2, 64, 128],
] as const;
/** Feature channels and anchors a pixel of the six feature maps that boxes are predicted from. */
const heads = [
  [512, 3],
  [1024, 6],
  [512, 6],
  [256, 6],
  [256, 6],
  [128, 6],
] as const;
const anchorCount = 5118;

class BoxPredictor extends Module {
  readonly BoxEncodingPredictor: Conv2d;
  readonly ClassPredictor: Conv2d;

  constructor(channels: number, anchors: number) {
    super();
    this.BoxEncodingPredictor = new Conv2d(channels, 4 * anchors, 1);
    this.ClassPredictor = new Conv2d(channels, 3 * anchors, 1);
  }
}

/** SSD on MobileNet v1: finds sharp and small faces. Input [1, 512, 512, 3] of 0 to 255. */
export class SsdDetector extends Module {
  static readonly size = 512;
  readonly MobilenetV1: Record<string, Conv2d> = {
    Conv2d_0_pointwise: new Conv2d(3, 32, 3, { stride: 2, padding: after }),
  };
  readonly Prediction: Record<string, Conv2d | BoxPredictor> = {};
  private readonly anchors: Tensor;

  /** @param anchors [5118, 4] corners of the anchors: top, left, bottom, right (`Output/extra_dim`) */
  constructor(anchors: Float32Array) {
    super();
    this.anchors = constant(anchors, [anchorCount, 4], 'f32');
    let channels = 32;
    mobilenet.forEach(([stride, out], i) => {
      const padding = stride === 2 ? after : 1;
      this.MobilenetV1[`Conv2d_${i + 1}_depthwise`] = new Conv2d(channels, channels, 3, { stride, padding });
      this.MobilenetV1[`Conv2d_${i + 1}_pointwise`] = new Conv2d(channels, out, 1);
      channels = out;
    });
    extras.forEach(([kernel, stride, inputs, out], i) => {
      const padding = kernel === 3 ? after : 0;
      this.Prediction[`Conv2d_${i}_pointwise`] = new Conv2d(inputs, out, kernel, { stride, padding });
    });
    heads.forEach(([inputs, count], i) => {
      this.Prediction[`BoxPredictor_${i}`] = new BoxPredictor(inputs, count);
    });
  }

  forward(image: Tensor): Detections {
    return this.trace(() => {
      const step = (x: Tensor, conv: Conv2d): Tensor => clamp(conv.forward(x), 0, 6);
      let x = affine(image, 2 / 255, -1);
      const maps: Tensor[] = [];
      for (const [name, conv] of Object.entries(this.MobilenetV1)) {
        x = step(x, conv);
        if (name === 'Conv2d_11_pointwise') maps.push(x);
      }
      maps.push(x);
      extras.forEach((_, i) => {
        x = step(x, this.Prediction[`Conv2d_${i}_pointwise`] as Conv2d);
        if (i % 2) maps.push(x);
      });
      const predictors = maps.map((_, i) => this.Prediction[`BoxPredictor_${i}`] as BoxPredictor);
      const encoded = concat(
        predictors.map((p, i) => reshape(p.BoxEncodingPredictor.forward(maps[i]), [-1, 4])),
        0,
      );
      const classes = concat(
        predictors.map((p, i) => reshape(p.ClassPredictor.forward(maps[i]), [-1, 3])),
        0,
      );
      // Class 0 is the background, 1 a face; the third is a remnant of training.
      const scores = sigmoid(reshape(slice(classes, [0, 1], [anchorCount, 1]), [anchorCount]));
      return { boxes: this.decode(encoded), scores };
    });
  }

  /** Offsets (a tenth of the anchor's extent) and log-extents (a fifth) to corners. */
  private decode(encoded: Tensor): Tensor {
    const [from, to] = split(this.anchors, 2, 1);
    const [offset, stretch] = split(encoded, 2, 1);
    const extent = sub(to, from);
    const centre = add(add(from, affine(extent, 0.5)), mul(affine(offset, 0.1), extent));
    const half = affine(mul(exp(affine(stretch, 0.2)), extent), 0.5);
    const [top, left] = split(sub(centre, half), 2, 1);
    const [bottom, right] = split(add(centre, half), 2, 1);
    return concat([left, top, right, bottom], 1);
  }
}

/** Width and height of the anchors, in cells. */
const cellAnchors = [
  1.603231, 2.094468, 6.041143, 7.080126, 2.882459, 3.518061, 4.266906, 5.178857, 9.041765, 10.66308,
];

/** A small YOLO: finds large faces that are too blurred for {@link SsdDetector}. Input [1, 416, 416, 3] of 0 to 255. */
export class TinyDetector extends Module {
  static readonly size = 416;
  readonly conv0 = new Conv2d(3, 16, 3);
  readonly conv1 = new Conv2d(16, 32, 3, { padding: 1 });
  readonly conv2 = new Conv2d(32, 64, 3, { padding: 1 });
  readonly conv3 = new Conv2d(64, 128, 3, { padding: 1 });
  readonly conv4 = new Conv2d(128, 256, 3, { padding: 1 });
  readonly conv5 = new Conv2d(256, 512, 3, { padding: 1 });
  readonly conv8 = new Conv2d(512, 25, 1);

  forward(image: Tensor): Detections {
    return this.trace(() => {
      let x = normalise(image, [117.001, 114.697, 97.404]);
      const layers = [this.conv0, this.conv1, this.conv2, this.conv3, this.conv4, this.conv5];
      layers.forEach((conv, i) => {
        x = leakyRelu(conv.forward(x), 0.1);
        const stride = i < 5 ? 2 : 1;
        const odd = stride === 1 || x.shape[1] % 2;
        x = maxPool2d(x, { kernel: [2, 2], stride: [stride, stride], padding: odd ? after : [0, 0, 0, 0] });
      });
      return this.decode(this.conv8.forward(x));
    });
  }

  /** Each cell predicts, for each of five anchors, a centre within the cell, log-extents and a score. */
  private decode(y: Tensor): Detections {
    const cells = y.shape[1];
    const grid = Float32Array.from({ length: cells * cells * 2 }, (_, k) => {
      const cell = k >> 1;
      return k % 2 ? Math.floor(cell / cells) : cell % cells;
    });
    const rows = reshape(y, [cells * cells, 5, 5]);
    const part = (start: number, size: number): Tensor => slice(rows, [0, 0, start], [cells * cells, 5, size]);
    const centre = add(sigmoid(part(0, 2)), constant(grid, [cells * cells, 1, 2], 'f32'));
    const half = mul(affine(exp(part(2, 2)), 0.5), reshape(values(cellAnchors), [5, 2]));
    const corners = concat([sub(centre, half), add(centre, half)], 2);
    const count = cells * cells * 5;
    return { boxes: reshape(affine(corners, 1 / cells), [count, 4]), scores: reshape(sigmoid(part(4, 1)), [count]) };
  }
}

/** Four convolutions, each of whose outputs is added to all later ones. */
class DenseBlock extends Module {
  readonly conv0: Conv2d;
  readonly conv1: Conv2d;
  readonly conv2: Conv2d;
  readonly conv3: Conv2d;

  constructor(inputs: number, channels: number) {
    super();
    this.conv0 = new Conv2d(inputs, channels, 3, { stride: 2, padding: after });
    this.conv1 = new Conv2d(channels, channels, 3, { padding: 1 });
    this.conv2 = new Conv2d(channels, channels, 3, { padding: 1 });
    this.conv3 = new Conv2d(channels, channels, 3, { padding: 1 });
  }

  forward(x: Tensor): Tensor {
    return this.trace(() => {
      let total = relu(this.conv0.forward(x));
      let y = total;
      for (const conv of [this.conv1, this.conv2, this.conv3]) {
        total = add(total, conv.forward(y));
        y = relu(total);
      }
      return y;
    });
  }
}

/**
 * What several of the package's networks see faces with, each by weights of its own: face_landmark_68, face_expression. Input
 * faces [N, H, W, 3] of 0 to 255; they learned at 112 pixels a side.
 */
export class FaceFeatures extends Module {
  static readonly size = 112;
  readonly dense0 = new DenseBlock(3, 32);
  readonly dense1 = new DenseBlock(32, 64);
  readonly dense2 = new DenseBlock(64, 128);
  readonly dense3 = new DenseBlock(128, 256);

  /** The maps after each block, each half as wide as the one before: 32, 64, 128 and 256 channels. */
  features(faces: Tensor): Tensor[] {
    return this.trace(() => {
      let x = normalise(faces, faceMean);
      return [this.dense0, this.dense1, this.dense2, this.dense3].map((block) => {
        x = block.forward(x);
        return x;
      });
    });
  }
}

/** The 68 landmarks of the iBUG scheme. Input faces [N, 112, 112, 3] of 0 to 255, output [N, 68, 2] fractions of the square. */
export class FaceLandmarks extends FaceFeatures {
  readonly fc = new Linear(256, 136);

  forward(faces: Tensor): Tensor {
    return this.trace(() => reshape(this.fc.forward(globalAvgPool(this.features(faces).at(-1)!)), [-1, 68, 2]));
  }
}

const faceMean = [122.782, 117.001, 104.298];

/** A residual block. One that shrinks halves the extent, and may double the channels; its shortcut is an average. */
class Residual extends Module {
  readonly conv1: Conv2d;
  readonly conv2: Conv2d;

  constructor(inputs: number, channels: number, shrink: boolean) {
    super();
    this.conv1 = new Conv2d(inputs, channels, 3, shrink ? { stride: 2 } : { padding: 1 });
    this.conv2 = new Conv2d(channels, channels, 3, { padding: 1 });
  }

  forward(x: Tensor): Tensor {
    return this.trace(() => {
      const y = this.conv2.forward(relu(this.conv1.forward(x)));
      if (this.conv1.stride === 1) return relu(add(x, y));
      const short = avgPool2d(x, { kernel: [2, 2] });
      return relu(add(grow(short, y), grow(y, short)));
    });
  }
}

/** x with zeros below, to the right and as further channels, where `other` is larger. */
const grow = (x: Tensor, other: Tensor): Tensor =>
  pad(
    x,
    [0, 0, 0, 0],
    x.shape.map((d, i) => Math.max(0, other.shape[i] - d)),
  );

/**
 * dlib's face recognition network. Input faces [N, 150, 150, 3] of 0 to 255; output [N, 128], whose Euclidean distance tells
 * persons apart (dlib's own limit is 0.6).
 */
export class FaceRecognition extends Module {
  static readonly size = 150;
  readonly conv32_down = new Conv2d(3, 32, 7, { stride: 2 });
  readonly conv32_1 = new Residual(32, 32, false);
  readonly conv32_2 = new Residual(32, 32, false);
  readonly conv32_3 = new Residual(32, 32, false);
  readonly conv64_down = new Residual(32, 64, true);
  readonly conv64_1 = new Residual(64, 64, false);
  readonly conv64_2 = new Residual(64, 64, false);
  readonly conv64_3 = new Residual(64, 64, false);
  readonly conv128_down = new Residual(64, 128, true);
  readonly conv128_1 = new Residual(128, 128, false);
  readonly conv128_2 = new Residual(128, 128, false);
  readonly conv256_down = new Residual(128, 256, true);
  readonly conv256_1 = new Residual(256, 256, false);
  readonly conv256_2 = new Residual(256, 256, false);
  readonly conv256_down_out = new Residual(256, 256, true);
  readonly fc = new Linear(256, 128, { bias: false });

  forward(faces: Tensor): Tensor {
    return this.trace(() => this.fc.forward(globalAvgPool(this.features(faces).at(-1)!)));
  }

  /** The maps after each stage, [N, h, w, channels]: 35 pixels a side with 32 channels, 17 with 64, 8 with 128, 2 with 256. */
  features(faces: Tensor): Tensor[] {
    return this.trace(() => {
      const first = relu(this.conv32_down.forward(normalise(faces, faceMean)));
      const stages = [
        [this.conv32_1, this.conv32_2, this.conv32_3],
        [this.conv64_down, this.conv64_1, this.conv64_2, this.conv64_3],
        [this.conv128_down, this.conv128_1, this.conv128_2],
        [this.conv256_down, this.conv256_1, this.conv256_2, this.conv256_down_out],
      ];
      let x = maxPool2d(first, { kernel: [3, 3], stride: [2, 2] });
      return stages.map((blocks) => {
        for (const block of blocks) x = block.forward(x);
        return x;
      });
    });
  }
}
