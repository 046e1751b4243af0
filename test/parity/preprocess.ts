import { grad } from '../../lib/graph/grad.ts';
import { cast, div, mul } from '../../lib/graph/ops/elementwise.ts';
import { reshape } from '../../lib/graph/ops/layout.ts';
import { sum } from '../../lib/graph/ops/reduce.ts';
import type { ResizeMode } from '../../lib/graph/ops/resample.ts';
import { sameShape, type Tensor } from '../../lib/graph/tensor.ts';
import { hpsPreprocess, type Resampling, resizeLonger, resizeShorter } from '../../lib/reward/preprocess.ts';
import { type Device, evaluate } from '../../lib/runtime/index.ts';
import type { Golden } from './golden.ts';
import { projection, toNchw, toNhwc } from './module.ts';
import { norm, type Report, relativeError } from './report.ts';

/** Limits of ../shared/golden/README.md: positions in float32 move the reference by up to 2e-5, its gradients by 4e-5. */
const limit = { values: 1e-4, gradients: 2e-4 };

/** Stored bytes as floats in [0, 1]. */
export const unit = (bytes: Tensor): Tensor => div(cast(bytes, 'f32'), 255);

export async function compareHpsPreprocess(device: Device, golden: Golden, report: Report): Promise<void> {
  const { size } = golden.json<{ size: number }>('config');
  const stored = golden.feed('in.image_u8');
  const image = unit(reshape(stored, [1, ...stored.shape]));
  const alone = (x: Tensor): Tensor => reshape(x, x.shape.slice(1));
  const official = (resampling: Resampling): Tensor => alone(toNchw(hpsPreprocess(image, { size, resampling })));
  const outputs: Record<string, Tensor> = {
    official_noaa: official('plain'),
    official_aa: official('antialias'),
    pil_resized_u8: mul(alone(resizeLonger(image, size, 'pil')), 255),
  };
  const values = await evaluate(device, outputs, await golden.values(['in.image_u8']));
  for (const name of golden.keys('out.')) {
    const label = `${golden.name} out.${name}`;
    const shape = golden.shape(`out.${name}`);
    if (!sameShape(outputs[name]?.shape ?? [], shape)) {
      report.fail(label, `shape [${outputs[name]?.shape}], expected [${shape}]`);
      continue;
    }
    const expected = await golden.read(`out.${name}`);
    if (name.endsWith('_u8')) report.add(label, relativeError(values[name].map(Math.round), expected, 1), 1, 'levels');
    else report.add(label, relativeError(values[name], expected), limit.values);
  }
}

interface ResizeConfig {
  size: number;
  modes: Record<string, { interpolation: ResizeMode; antialias: boolean }>;
  /** Rows of the gradients that the file holds. */
  grad_rows: 'all' | number[];
}

export async function compareResize(device: Device, golden: Golden, report: Report): Promise<void> {
  const { size, modes, grad_rows } = golden.json<ResizeConfig>('config');
  const x = unit(golden.feed('in.x_u8'));
  const cotangent = golden.feed('in.cotangent');
  const outputs: Record<string, Tensor> = {};
  for (const [name, { interpolation, antialias }] of Object.entries(modes)) {
    const y = toNchw(resizeShorter(toNhwc(x), size, { mode: interpolation, antialias }));
    outputs[`out.${name}`] = y;
    outputs[`grad.x.${name}`] = grad(sum(mul(y, cotangent)), [x])[0];
  }
  const values = await evaluate(device, outputs, await golden.values(['in.x_u8', 'in.cotangent']));
  for (const name of golden.keys('out.')) {
    const error = relativeError(values[`out.${name}`] ?? [], await golden.read(`out.${name}`));
    report.add(`${golden.name} out.${name}`, error, limit.values);
  }
  const [n, c, height, width] = x.shape;
  const rows = grad_rows === 'all' ? Array.from({ length: height }, (_, row) => row) : grad_rows;
  for (const key of golden.keys('grad.x.').map((name) => `grad.x.${name}`)) {
    const gradient = values[key] ?? [];
    const stored = Array.from({ length: n * c }, (_, plane) =>
      rows.map((row) => (plane * height + row) * width),
    ).flat();
    const kept = stored.flatMap((at) => [...gradient.slice(at, at + width)]);
    report.add(`${golden.name} ${key}`, relativeError(kept, await golden.read(key)), limit.gradients);
  }
  const [l2, proj] = [await golden.read('gradstat.l2'), await golden.read('gradstat.proj')];
  golden.json<string[]>('gradstat_names').forEach((name, i) => {
    const gradient = values[`grad.x.${name}`] ?? [Number.NaN];
    report.add(`${golden.name} gradstat.l2 ${name}`, Math.abs(norm(gradient) - l2[i]) / l2[i], limit.gradients);
    report.add(
      `${golden.name} gradstat.proj ${name}`,
      Math.abs(projection(gradient) - proj[i]) / l2[i],
      limit.gradients,
    );
  });
}
