import { full } from '../graph/ops/elementwise.ts';
import { constant, type Tensor } from '../graph/tensor.ts';
import { CLIP, type CLIPConfig } from '../models/clip.ts';
import { initialize } from '../nn/init.ts';
import type { Device } from '../runtime/index.ts';
import { saveCheckpoint } from '../train/checkpoint.ts';

/** Vertical and horizontal frequencies of the patches' filters, in half waves a patch: every pair of them is a filter. */
const frequencies = [0, 1, 2, 3, 5, 7, 10, 14];

/** How the red, green and blue of a picture make its brightness (BT.601). */
const brightness = [0.299, 0.587, 0.114];

/**
 * Writes the CLIP that training begins from, a safetensors file with its configuration. All of it is drawn but what makes tokens of patches:
 *
 * - The filters are the patch's cosines (DCT-II) of brightness, each times 0.3 f^1.5 at frequency f, since faces have so much less
 *   of the higher ones, which tell a sharp picture from a soft one. Filters drawn at random see next to nothing but a patch's mean.
 * - Positions are all alike: how clear a picture is should not depend on where in it something is.
 *
 * Both are to stay as they are: with pictures of a few people the tower would learn their faces.
 */
export async function writeStart(device: Device, path: string, config: CLIPConfig, seed: number): Promise<void> {
  const clip = new CLIP(config);
  const { conv1, positional_embedding: positions } = clip.visual;
  const given = new Map([
    [conv1.weight, cosines(conv1.weight.value)],
    [positions, full(positions.value.shape, 0)],
  ]);
  using parameters = device.parameters();
  await initialize(device, parameters, clip, BigInt(seed), given);
  const values = [...clip.namedParameters()].map(([key, { value }]) => [key, value] as const);
  await saveCheckpoint(path, parameters, new Map(values), { config: JSON.stringify(config) });
}

/** Filters [n, 3, side, side], of which n is at most the number of pairs of {@link frequencies}. */
function cosines({ shape, size }: Tensor): Tensor {
  const side = shape[3];
  const wave = (u: number, x: number): number =>
    Math.cos((Math.PI * (2 * x + 1) * u) / (2 * side)) * Math.sqrt((u ? 2 : 1) / side);
  const values = Float32Array.from({ length: size }, (_, i) => {
    const [x, y, channel, filter] = [i, i / side, i / side ** 2, i / (3 * side ** 2)].map(Math.floor);
    const [u, v] = [frequencies[filter >> 3], frequencies[filter & 7]];
    const f = Math.hypot(u, v);
    const gain = f ? 0.3 * f ** 1.5 : 0.03;
    return gain * brightness[channel % 3] * wave(u, y % side) * wave(v, x % side);
  });
  return constant(values, shape, 'f32');
}
