import { affine, cast, div } from '../../lib/graph/ops/elementwise.ts';
import { broadcastTo, reshape } from '../../lib/graph/ops/layout.ts';
import { cosines } from '../../lib/graph/ops/reward.ts';
import type { Tensor } from '../../lib/graph/tensor.ts';
import { CLIP, type CLIPConfig, TextTransformer } from '../../lib/models/clip.ts';
import { ControlNet, type ControlNetConfig } from '../../lib/models/controlnet.ts';
import { LPIPS } from '../../lib/models/lpips.ts';
import { SwinIR, type SwinIRConfig } from '../../lib/models/swinir.ts';
import { UNet, type UNetConfig } from '../../lib/models/unet.ts';
import { AutoencoderKL, type VaeConfig } from '../../lib/models/vae.ts';
import { logits } from '../../lib/reward/hps.ts';
import { normalizeColours } from '../../lib/reward/preprocess.ts';
import type { FullTrace, Limit } from './full.ts';
import type { Golden } from './golden.ts';
import { toNchw, toNhwc } from './module.ts';

/** Limits of ../shared/golden/full/README.md; those of files with gradients are wider. */
const plain =
  (weights: Golden, golden: Golden): (() => Limit) =>
  () => ({ error: weights === golden ? 2e-5 : 5e-5 });

const feedsOf = (golden: Golden, names: string[]): Record<string, Tensor> =>
  Object.fromEntries(names.map((name) => [`in.${name}`, golden.feed(`in.${name}`)]));

/** Stored bytes, NHWC, as floats in [0, 1]. */
const unit = (bytes: Tensor): Tensor => div(cast(bytes, 'f32'), 255);

export const unetFull: FullTrace = (golden, weights) => {
  const config = weights.json<{ unet_cfg: UNetConfig; controlnet_cfg: ControlNetConfig }>('config');
  const [unet, controlnet] = [new UNet(config.unet_cfg), new ControlNet(config.controlnet_cfg)];
  const feeds = feedsOf(golden, ['x', 'hint', 'timesteps', 'context']);
  const [x, hint, timesteps] = [toNhwc(feeds['in.x']), toNhwc(feeds['in.hint']), feeds['in.timesteps']];
  // One text serves the whole batch.
  const context = broadcastTo(feeds['in.context'], [x.shape[0], ...feeds['in.context'].shape.slice(1)]);
  const control = controlnet.forward(x, hint, timesteps, context);
  const outputs: Record<string, Tensor> = {
    eps: toNchw(unet.forward(x, timesteps, context)),
    eps_controlled: toNchw(unet.forward(x, timesteps, context, { control })),
  };
  control.forEach((feature, i) => {
    outputs[`control.${i}`] = toNchw(feature);
  });
  const parts = [
    { module: unet, manifest: 'sd21_unet', key: (own: string) => `model.diffusion_model.${own}` },
    { module: controlnet, manifest: 'diffbir_controlnet', key: (own: string) => own },
  ];
  return { parts, feeds, outputs, limit: plain(weights, golden) };
};

export const vaeFull: FullTrace = (golden, weights) => {
  const module = new AutoencoderKL(weights.json<VaeConfig>('config'));
  const feeds = feedsOf(golden, ['image', 'z']);
  const outputs = {
    moments: toNchw(module.encode(toNhwc(feeds['in.image']))),
    decoded: toNchw(module.decode(toNhwc(feeds['in.z']))),
  };
  const parts = [{ module, manifest: 'sd21_vae', key: (own: string) => `first_stage_model.${own}` }];
  return { parts, feeds, outputs, limit: plain(weights, golden) };
};

export const swinirFull: FullTrace = (golden, weights) => {
  const module = new SwinIR(weights.json<SwinIRConfig>('config'));
  const feeds = feedsOf(golden, ['image']);
  const outputs = { image: toNchw(module.forward(toNhwc(feeds['in.image']))) };
  const parts = [{ module, manifest: 'swinir_face_stage1', key: (own: string) => own }];
  return { parts, feeds, outputs, limit: plain(weights, golden) };
};

export const clipTextFull: FullTrace = (golden, weights) => {
  const module = new TextTransformer(weights.json<CLIPConfig>('config'));
  const feeds = feedsOf(golden, ['tokens']);
  const ids = feeds['in.tokens'];
  const outputs = {
    penultimate: module.tokens(ids, { skip: 1 }),
    last: module.tokens(ids),
    pooled: module.pooled(ids),
  };
  const parts = [{ module, manifest: 'sd21_openclip_text', key: (own: string) => `cond_stage_model.model.${own}` }];
  return { parts, feeds, outputs, limit: plain(weights, golden) };
};

export const hpsFull: FullTrace = (golden, weights) => {
  const module = new CLIP(weights.json<CLIPConfig>('config'));
  const bytes = golden.has('in.image_u8');
  const feeds = feedsOf(golden, [bytes ? 'image_u8' : 'image', 'tokens']);
  const image = bytes ? unit(feeds['in.image_u8']) : toNhwc(feeds['in.image']);
  const feature = module.visual.forward(normalizeColours(image));
  const pooled = module.pooled(feeds['in.tokens']);
  const cos = cosines(feature, pooled);
  const outputs = { image_feature: feature, text_pooled: pooled, cos, logits: logits(module, cos) };
  const parts = [{ module, manifest: 'hpsv2_vit_h_14', key: (own: string) => own }];
  const limit = (output: string): Limit => {
    if (output === 'cos') return { error: 1e-6, absolute: true };
    if (output === 'logits') return { error: 2e-5, absolute: true };
    return plain(weights, golden)();
  };
  return { parts, feeds, outputs, limit };
};

export const lpipsFull: FullTrace = (golden, weights) => {
  const module = new LPIPS();
  const bytes = golden.has('in.in0_u8');
  const names = bytes ? ['in0_u8', 'in1_u8'] : ['in0', 'in1'];
  const feeds = feedsOf(golden, names);
  const [a, b] = names.map((name) => (bytes ? affine(unit(feeds[`in.${name}`]), 2, -1) : toNhwc(feeds[`in.${name}`])));
  const { distance, layers } = module.forward(a, b);
  const outputs: Record<string, Tensor> = { lpips: reshape(distance, [-1, 1, 1, 1]) };
  layers.forEach((layer, k) => {
    outputs[`layer${k}`] = reshape(layer, [-1, 1, 1, 1]);
  });
  [a, b].forEach((x, i) => {
    module.features(x).forEach((feature, k) => {
      outputs[`feat_in${i}.${k}`] = toNchw(feature);
    });
  });
  const parts = [
    { module, manifest: 'vgg16_features', key: (own: string) => own.replace(/^net\.slice\d+\./, 'features.') },
  ];
  const lins = weights.keys('weights.');
  const limit = (output: string): Limit => {
    if (output.startsWith('grad_')) return { error: 1e-3, norm: 1e-2 };
    if (output === 'lpips') return { error: 1e-5 };
    return { error: output.startsWith('layer') ? 1e-4 : 2e-5 };
  };
  return { parts, stored: Object.fromEntries(lins.map((key) => [key, `weights.${key}`])), feeds, outputs, limit };
};
