import { clamp, sub } from '../../lib/graph/ops/elementwise.ts';
import { reshape } from '../../lib/graph/ops/layout.ts';
import type { Tensor } from '../../lib/graph/tensor.ts';
import { adainColorFix, dilatedBlur, waveletColorFix, waveletLow } from '../../lib/restore/color_fix.ts';
import { type Device, evaluate } from '../../lib/runtime/index.ts';
import type { Golden } from './golden.ts';
import { toNchw, toNhwc } from './module.ts';
import { unit } from './preprocess.ts';
import { type Report, relativeError } from './report.ts';

/** Of ../shared/golden/README.md. Bytes are truncated, so a rounding of the last bit moves one by a level. */
const limit = 1e-5;

export async function compareColorFix(device: Device, golden: Golden, report: Report): Promise<void> {
  const { levels } = golden.json<{ levels: number }>('config');
  const fixes = { wavelet: waveletColorFix, adain: adainColorFix };
  const outputs: Record<string, Tensor> = {};
  for (const name of new Set(golden.keys('in.').map((key) => key.split('.')[0]))) {
    const [content, style] = ['content', 'style'].map((kind) => toNhwc(golden.feed(`in.${name}.${kind}`)));
    const low = waveletLow(content, levels);
    outputs[`${name}.low`] = toNchw(low);
    outputs[`${name}.high`] = toNchw(sub(content, low));
    outputs[`${name}.blur_r4`] = toNchw(dilatedBlur(content, 4));
    const images = ['content', 'style'].map((kind) => {
      const stored = golden.feed(`in.${name}.${kind}_u8`);
      return unit(reshape(stored, [1, ...stored.shape]));
    });
    for (const [kind, fix] of Object.entries(fixes)) {
      outputs[`${name}.${kind}`] = toNchw(fix(content, style));
      outputs[`${name}.${kind}_u8`] = clamp(fix(images[0], images[1]), 0, 1);
    }
  }
  const values = await evaluate(device, outputs, await golden.values(golden.keys('in.').map((key) => `in.${key}`)));
  for (const name of golden.keys('out.')) {
    const label = `${golden.name} out.${name}`;
    const expected = await golden.read(`out.${name}`);
    if (!values[name]) report.fail(label, 'there is no such output here');
    else if (name.endsWith('_u8')) {
      const levelsOf = Float32Array.from(values[name], (v) => Math.trunc(Number(v) * 255));
      report.add(label, relativeError(levelsOf, expected, 1), 1, 'levels');
    } else report.add(label, relativeError(values[name], expected), limit);
  }
}
