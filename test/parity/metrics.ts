import { cast, div } from '../../lib/graph/ops/elementwise.ts';
import { reshape, transpose } from '../../lib/graph/ops/layout.ts';
import { psnr, ssim } from '../../lib/metrics/fidelity.ts';
import { blockMoments, niqe, niqeFeatures, studioLuma } from '../../lib/metrics/niqe.ts';
import { type Device, evaluate } from '../../lib/runtime/index.ts';
import type { Golden } from './golden.ts';
import { type Report, relativeError } from './report.ts';

/** Limits of ../shared/golden/README.md. */
const limits = { psnr: 1e-4, ssim: 1e-5, niqe: 0.02, features: 1e-3, luma: 0 } as const;

/** PSNR, SSIM and NIQE of a picture and a degraded copy each, in float64 as the reference is. */
export async function compareMetrics(device: Device, golden: Golden, report: Report): Promise<void> {
  const pristine = {
    mean: Float64Array.from(await golden.read('in.niqe.mu')),
    covariance: Float64Array.from(await golden.read('in.niqe.cov')),
  };
  const names = Object.keys(golden.json<{ images: object }>('config').images);
  for (const name of names) {
    const compare = async (what: string, ours: ArrayLike<number>, limit: number, scale?: number): Promise<void> => {
      const key = `out.${name}.${what}`;
      report.add(`${golden.name} ${key}`, relativeError(ours, await golden.read(key), scale), limit);
    };
    const feeds = await golden.values([`in.${name}.ref_u8`, `in.${name}.dist_u8`]);
    const [ref, dist] = ['ref', 'dist'].map((kind) => {
      const stored = golden.feed(`in.${name}.${kind}_u8`);
      return reshape(stored, [1, ...stored.shape]);
    });
    const [a, b] = [ref, dist].map((x) => div(cast(x, 'f64'), 255));
    const [planesA, planesB] = [a, b].map((x) => transpose(x, [3, 1, 2, 0]));
    const outputs = { psnr: psnr(a, b), ssim: ssim(a, b), channels: ssim(planesA, planesB) };
    const fidelity = await evaluate(device, outputs, feeds);
    await compare('psnr', fidelity.psnr, limits.psnr, 1);
    await compare('ssim', fidelity.ssim, limits.ssim, 1);
    await compare('ssim_per_channel', fidelity.channels, limits.ssim, 1);
    for (const [kind, picture] of [
      ['ref', ref],
      ['dist', dist],
    ] as const) {
      const brightness = studioLuma(picture);
      const { full, half } = blockMoments(brightness);
      const feed = `in.${name}.${kind}_u8`;
      const values = await evaluate(device, { brightness, full, half }, { [feed]: feeds[feed] });
      if (kind === 'ref') await compare('y_rounded_u8', values.brightness, limits.luma, 1);
      const features = niqeFeatures({ full: values.full, half: values.half });
      await compare(
        `niqe_${kind}_features`,
        features.flatMap((row) => [...row]),
        limits.features,
      );
      await compare(`niqe_${kind}`, [niqe(features, pristine)], limits.niqe, 1);
    }
  }
}
