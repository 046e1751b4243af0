import { grad } from '../../lib/graph/grad.ts';
import { l2Normalize } from '../../lib/graph/ops/compose.ts';
import { constant, type Tensor } from '../../lib/graph/tensor.ts';
import { CLIP, type CLIPConfig, TextTransformer, VisionTransformer } from '../../lib/models/clip.ts';
import { Module } from '../../lib/nn/module.ts';
import { features, logits, pairedScores, preferenceLoss } from '../../lib/reward/hps.ts';
import type { Device } from '../../lib/runtime/index.ts';
import type { Golden } from './golden.ts';
import { compareWeightGradients, compute, type Traced, toNhwc, type Values } from './module.ts';
import { limits, type Report, relativeError } from './report.ts';

export function clipText(golden: Golden): Traced {
  const module = new TextTransformer(golden.json<CLIPConfig>('config'));
  const ids = golden.feed('in.tokens');
  const pooled = module.pooled(ids);
  const outputs = {
    pooled,
    pooled_normalized: l2Normalize(pooled),
    last: module.tokens(ids),
    penultimate: module.tokens(ids, { skip: 1 }),
  };
  return { module, feeds: { 'in.tokens': ids }, outputs };
}

class VisionOnly extends Module {
  readonly visual: VisionTransformer;

  constructor(config: CLIPConfig) {
    super();
    this.visual = new VisionTransformer(config);
  }
}

export function clipVision(golden: Golden): Traced {
  const module = new VisionOnly(golden.json<CLIPConfig>('config'));
  const image = golden.feed('in.image');
  const feature = module.visual.forward(toNhwc(image));
  return { module, feeds: { 'in.image': image }, outputs: { feature, feature_normalized: l2Normalize(feature) } };
}

/** Both towers under the two preference losses, whose gradients the file holds one loss at a time. */
export async function compareHps(device: Device, golden: Golden, report: Report): Promise<void> {
  const clip = new CLIP(golden.json<CLIPConfig>('config'));
  const feeds = Object.fromEntries(
    ['images', 'tokens', 'hard', 'soft'].map((name) => [name, golden.feed(`in.${name}`)]),
  );
  const found = features(clip, toNhwc(feeds.images), feeds.tokens);
  const units = { image_features: l2Normalize(found.images), text_features: l2Normalize(found.texts) };
  const cos = pairedScores(found);
  const labels = ['hard', 'soft'] as const;
  const losses = Object.fromEntries(labels.map((label) => [`loss_${label}`, preferenceLoss(clip, cos, feeds[label])]));
  const outputs: Record<string, Tensor> = {
    cos,
    s: logits(clip, cos),
    ...units,
    ...losses,
  };
  const run = (results: Record<string, Tensor>, given: readonly string[], frozen: boolean): Promise<Values> =>
    compute(device, golden, clip, results, ['in.images', 'in.tokens', ...given.map((label) => `in.${label}`)], frozen);
  for (const [how, frozen] of [
    ['', false],
    [' (frozen weights)', true],
  ] as const) {
    const values = await run(outputs, labels, frozen);
    for (const name of golden.keys('out.')) {
      const error = relativeError(values[name] ?? [], await golden.read(`out.${name}`));
      report.add(`${golden.name} out.${name}${how}`, error, limits.output);
    }
  }
  const parameters = [...clip.namedParameters()];
  const wanted: Record<string, Tensor> = {
    'in.images': feeds.images,
    image_features: found.images,
    text_features: found.texts,
  };
  for (const [key, { value }] of parameters) wanted[`weights.${key}`] = value;
  for (const label of labels) {
    const name = `loss_${label}`;
    const gradients = grad(losses[name], Object.values(wanted));
    const keys = Object.keys(wanted).map((key) => `grad.${key}`);
    const results = Object.fromEntries(keys.map((key, i) => [key, gradients[i]]));
    // The file's gradients are those by features of length 1, which stay within one operator here: they are carried on
    // to the features before, by the derivative of the division alone.
    for (const [key, unit] of Object.entries(units)) {
      const slopes = constant(Float32Array.from(await golden.read(`grad.${name}.${key}`)), unit.shape, 'f32');
      [results[`expected.${key}`]] = grad(unit, [wanted[key]], [slopes]);
    }
    const values = await run(results, [label], false);
    for (const key of ['in.images', 'image_features', 'text_features']) {
      const expected = values[`expected.${key}`] ?? (await golden.read(`grad.${name}.${key}`));
      report.add(
        `${golden.name} grad.${name}.${key}`,
        relativeError(values[`grad.${key}`], expected),
        limits.inputGrad,
      );
    }
    await compareWeightGradients(golden, values, report, '', `${name}.`);
  }
}
