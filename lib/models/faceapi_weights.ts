import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { ReflError } from '../errors.ts';
import { type Shape, sizeOf } from '../graph/tensor.ts';
import { Conv2d, Linear } from '../nn/layers.ts';
import type { Module } from '../nn/module.ts';

/** A tensor of the package's weights. */
export interface Stored {
  readonly shape: Shape;
  readonly values: Float32Array;
}

interface ManifestEntry {
  readonly name: string;
  readonly shape: Shape;
  readonly dtype: string;
  readonly quantization?: { readonly dtype: string; readonly scale: number; readonly min: number };
}

const storedAs = { uint8: Uint8Array, uint16: Uint16Array, int32: Int32Array, float32: Float32Array } as const;

/**
 * The tensors of a TensorFlow.js weights manifest, by name. Quantised ones are stored as whole numbers q that stand for
 * q * scale + min. Throws ERR_FILE, or ERR_WEIGHTS where manifest and data do not belong together.
 */
export async function readManifest(path: string): Promise<Map<string, Stored>> {
  const groups = JSON.parse((await read(path)).toString()) as { paths: string[]; weights: ManifestEntry[] }[];
  const tensors = new Map<string, Stored>();
  for (const { paths, weights } of groups) {
    const parts = await Promise.all(paths.map((name) => read(join(dirname(path), name))));
    const bytes = Buffer.concat(parts);
    let offset = 0;
    for (const { name, shape, dtype, quantization } of weights) {
      const array = storedAs[(quantization?.dtype ?? dtype) as keyof typeof storedAs];
      const size = sizeOf(shape);
      const end = offset + size * (array?.BYTES_PER_ELEMENT ?? 0);
      if (!array || end > bytes.length) {
        throw new ReflError(
          'ERR_WEIGHTS',
          `${path}: ${name} (${quantization?.dtype ?? dtype}) does not fit its data file`,
        );
      }
      const { scale = 1, min = 0 } = quantization ?? {};
      const codes = new array(Uint8Array.from(bytes.subarray(offset, end)).buffer);
      const values = new Float32Array(size);
      for (let i = 0; i < size; i++) values[i] = codes[i] * scale + min;
      tensors.set(name, { shape, values });
      offset = end;
    }
  }
  return tensors;
}

async function read(path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (cause) {
    throw new ReflError('ERR_FILE', `cannot read ${path}: ${(cause as Error).message}`, { cause });
  }
}

/**
 * The values of every parameter of `module`, by key, made of the stored tensors whose names begin with its layers' paths (with
 * / for the dots). What follows a convolution linearly - a second, pointwise convolution, a batch norm, a scale - is folded into
 * it, and a depthwise kernel becomes a dense one with zeros, so that a network here is plain convolutions.
 */
export function foldWeights(module: Module, tensors: ReadonlyMap<string, Stored>): Map<string, Float32Array> {
  const folded = new Map<string, Float32Array>();
  for (const [path, layer] of module.namedModules()) {
    if (!(layer instanceof Conv2d || layer instanceof Linear)) continue;
    const name = path.replaceAll('.', '/');
    const { weight, bias } = layer instanceof Conv2d ? foldConv(name, tensors) : foldLinear(name, tensors);
    if (weight.length !== layer.weight.value.size || (layer.bias && bias?.length !== layer.bias.value.size)) {
      throw new ReflError('ERR_WEIGHTS', `the stored weights of ${name} do not fit ${layer.weight.value}`);
    }
    folded.set(`${path}.weight`, weight);
    if (layer.bias) folded.set(`${path}.bias`, bias!);
  }
  return folded;
}

interface Folded {
  readonly weight: Float32Array;
  readonly bias?: Float32Array;
}

function foldConv(name: string, tensors: ReadonlyMap<string, Stored>): Folded {
  const get = (key: string): Stored => needTensor(tensors, `${name}/${key}`);
  const has = (key: string): boolean => tensors.has(`${name}/${key}`);
  if (has('depthwise_filter')) {
    return { weight: compose(get('depthwise_filter'), get('pointwise_filter')), bias: get('bias').values };
  }
  if (has('depthwise_weights')) {
    const [gamma, beta, mean, variance] = ['gamma', 'beta', 'moving_mean', 'moving_variance'].map(
      (key) => get(`BatchNorm/${key}`).values,
    );
    // The epsilon of TensorFlow's MobileNet, as the exported graph holds it in float32.
    const scale = gamma.map((g, i) => g / Math.sqrt(variance[i] + 0.0010000000474974513));
    return { weight: dense(get('depthwise_weights'), scale), bias: beta.map((b, i) => b - mean[i] * scale[i]) };
  }
  if (has('scale/weights')) {
    const [scale, shift] = [get('scale/weights').values, get('scale/biases').values];
    const weight = toOihw(get('conv/filters'), scale);
    return { weight, bias: get('conv/bias').values.map((b, i) => b * scale[i] + shift[i]) };
  }
  const bias = ['bias', 'biases', 'convolution_bn_offset'].find(has) ?? 'bias';
  return { weight: toOihw(get(has('filters') ? 'filters' : 'weights')), bias: get(bias).values };
}

/** [in, out], stored with a bias as name/weights, without one as `name` itself, to [out, in]. */
function foldLinear(name: string, tensors: ReadonlyMap<string, Stored>): Folded {
  const { shape, values } = tensors.get(name) ?? needTensor(tensors, `${name}/weights`);
  const [inputs, outputs] = shape;
  const weight = values.map((_, k) => values[(k % inputs) * outputs + Math.floor(k / inputs)]);
  return { weight, bias: tensors.get(`${name}/bias`)?.values };
}

/** The tensor `key`; throws ERR_WEIGHTS where there is none. */
export function needTensor(tensors: ReadonlyMap<string, Stored>, key: string): Stored {
  const tensor = tensors.get(key);
  if (!tensor) throw new ReflError('ERR_WEIGHTS', `the face networks' weights lack ${key}`);
  return tensor;
}

/** [kh, kw, in, out] to [out, in, kh, kw], output channel o multiplied by scale[o]. */
function toOihw({ shape: [kh, kw, inputs, outputs], values }: Stored, scale?: Float32Array): Float32Array {
  const taps = kh * kw;
  const weight = new Float32Array(values.length);
  for (let k = 0, source = 0; k < taps; k++) {
    for (let i = 0; i < inputs; i++) {
      for (let o = 0; o < outputs; o++) weight[(o * inputs + i) * taps + k] = values[source++] * (scale?.[o] ?? 1);
    }
  }
  return weight;
}

/** A depthwise kernel [kh, kw, in, 1] as a dense one [in, in, kh, kw], channel i multiplied by scale[i]. */
function dense({ shape: [kh, kw, channels], values }: Stored, scale: Float32Array): Float32Array {
  const taps = kh * kw;
  const weight = new Float32Array(channels * channels * taps);
  for (let i = 0; i < channels; i++) {
    for (let k = 0; k < taps; k++) weight[(i * channels + i) * taps + k] = values[k * channels + i] * scale[i];
  }
  return weight;
}

/** A depthwise kernel [kh, kw, in, 1] followed by a pointwise one [1, 1, in, out], as one [out, in, kh, kw]. */
function compose(depthwise: Stored, pointwise: Stored): Float32Array {
  const [kh, kw, inputs] = depthwise.shape;
  const outputs = pointwise.shape[3];
  const taps = kh * kw;
  const weight = new Float32Array(outputs * inputs * taps);
  for (let o = 0; o < outputs; o++) {
    for (let i = 0; i < inputs; i++) {
      const factor = pointwise.values[i * outputs + o];
      for (let k = 0; k < taps; k++) weight[(o * inputs + i) * taps + k] = factor * depthwise.values[k * inputs + i];
    }
  }
  return weight;
}
