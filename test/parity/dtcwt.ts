import { grad } from '../../lib/graph/grad.ts';
import type { Tensor } from '../../lib/graph/tensor.ts';
import { dtcwtLoss, dtcwtLow } from '../../lib/metrics/dtcwt.ts';
import { type Device, evaluate } from '../../lib/runtime/index.ts';
import type { Golden } from './golden.ts';
import { toNchw, toNhwc } from './module.ts';
import { type Report, relativeError } from './report.ts';

/** Of ../shared/golden/README.md; a difference near 0 may change its sign in float32. */
const limits = { values: 2e-6, l1Gradient: 1e-5 } as const;

/** Every `low<J>` and `l1_low<J>` that the file has, with its gradients. */
export async function compareDtcwt(device: Device, golden: Golden, report: Report): Promise<void> {
  const outputs: Record<string, Tensor> = {};
  const feeds: Record<string, Tensor> = {};
  const feed = (key: string): Tensor => {
    feeds[key] ??= golden.feed(key);
    return feeds[key];
  };
  for (const name of golden.keys('out.')) {
    const [sample, what] = name.split('.');
    const levels = Number(what.at(-1));
    if (what.startsWith('l1_')) {
      const [a, b] = ['a', 'b'].map((side) => feed(`in.${sample}.${side}`));
      outputs[`out.${name}`] = dtcwtLoss(toNhwc(a), toNhwc(b), levels);
      [outputs[`grad.${sample}.a.${what}`]] = grad(outputs[`out.${name}`], [a]);
    } else {
      const x = feed(`in.${sample}.x`);
      outputs[`out.${name}`] = toNchw(dtcwtLow(toNhwc(x), levels));
      if (!golden.has(`in.${sample}.cotangent.${what}`)) continue;
      const along = feed(`in.${sample}.cotangent.${what}`);
      [outputs[`grad.${sample}.x.${what}`]] = grad([outputs[`out.${name}`]], [x], [along]);
    }
  }
  const values = await evaluate(device, outputs, await golden.values(Object.keys(feeds)));
  for (const key of [...golden.keys('out.').map((k) => `out.${k}`), ...golden.keys('grad.').map((k) => `grad.${k}`)]) {
    const limit = /^grad\..*\.l1_/.test(key) ? limits.l1Gradient : limits.values;
    if (values[key]) report.add(`${golden.name} ${key}`, relativeError(values[key], await golden.read(key)), limit);
    else report.fail(`${golden.name} ${key}`, 'there is no such output here');
  }
}
