import { silu } from '../../lib/graph/ops/activation.ts';
import { conv2d } from '../../lib/graph/ops/conv2d.ts';
import { affine } from '../../lib/graph/ops/elementwise.ts';
import { reshape } from '../../lib/graph/ops/layout.ts';
import { linear } from '../../lib/graph/ops/matmul.ts';
import type { Tensor } from '../../lib/graph/tensor.ts';
import { ControlNet, type ControlNetConfig } from '../../lib/models/controlnet.ts';
import { LPIPS, type LPIPSConfig } from '../../lib/models/lpips.ts';
import { SwinIR, type SwinIRConfig } from '../../lib/models/swinir.ts';
import { UNet, type UNetConfig } from '../../lib/models/unet.ts';
import { AutoencoderKL, posterior, type VaeConfig } from '../../lib/models/vae.ts';
import { Conv2d, Linear } from '../../lib/nn/layers.ts';
import { LoraLayer } from '../../lib/nn/lora.ts';
import { Module } from '../../lib/nn/module.ts';
import type { Golden } from './golden.ts';
import { type Traced, toNchw, toNhwc } from './module.ts';

const feedsOf = (golden: Golden, names: string[]): Record<string, Tensor> =>
  Object.fromEntries(names.map((name) => [`in.${name}`, golden.feed(`in.${name}`)]));

export function unet(golden: Golden): Traced {
  const module = new UNet(golden.json<UNetConfig>('config'));
  const feeds = feedsOf(golden, ['x', 'timesteps', 'context']);
  const eps = module.forward(toNhwc(feeds['in.x']), feeds['in.timesteps'], feeds['in.context']);
  return { module, feeds, outputs: { eps: toNchw(eps) } };
}

interface ControlConfig {
  unet_cfg: UNetConfig;
  controlnet_cfg: ControlNetConfig;
  control_scales_for_eps_scaled: number[];
}

class Controlled extends Module {
  readonly unet: UNet;
  readonly controlnet: ControlNet;

  constructor(config: ControlConfig) {
    super();
    this.unet = new UNet(config.unet_cfg);
    this.controlnet = new ControlNet(config.controlnet_cfg);
  }
}

export function controlnet(golden: Golden): Traced {
  const config = golden.json<ControlConfig>('config');
  const module = new Controlled(config);
  const feeds = feedsOf(golden, ['x', 'hint', 'timesteps', 'context']);
  const [x, hint] = [toNhwc(feeds['in.x']), toNhwc(feeds['in.hint'])];
  const [timesteps, context] = [feeds['in.timesteps'], feeds['in.context']];
  const control = module.controlnet.forward(x, hint, timesteps, context);
  const scaled = control.map((feature, i) => affine(feature, config.control_scales_for_eps_scaled[i]));
  const outputs: Record<string, Tensor> = {
    eps: toNchw(module.unet.forward(x, timesteps, context, { control })),
    eps_scaled: toNchw(module.unet.forward(x, timesteps, context, { control: scaled })),
  };
  control.forEach((feature, i) => {
    outputs[`control.${i}`] = toNchw(feature);
  });
  return { module, feeds, outputs };
}

export function vae(golden: Golden): Traced {
  const module = new AutoencoderKL(golden.json<VaeConfig>('config'));
  const feeds = feedsOf(golden, ['image', 'z']);
  const moments = module.encode(toNhwc(feeds['in.image']));
  const outputs: Record<string, Tensor> = {
    moments: toNchw(moments),
    decoded: toNchw(module.decode(toNhwc(feeds['in.z']))),
  };
  for (const [name, part] of Object.entries(posterior(moments))) outputs[`posterior.${name}`] = toNchw(part);
  return { module, feeds, outputs };
}

export function swinir(golden: Golden): Traced {
  const module = new SwinIR(golden.json<SwinIRConfig>('config'));
  const feeds = feedsOf(golden, ['image']);
  return { module, feeds, outputs: { image: toNchw(module.forward(toNhwc(feeds['in.image']))) } };
}

export function lpips(golden: Golden): Traced {
  const module = new LPIPS(golden.json<LPIPSConfig>('config'));
  const feeds = feedsOf(golden, ['in0', 'in1']);
  const [a, b] = [toNhwc(feeds['in.in0']), toNhwc(feeds['in.in1'])];
  const { distance, layers } = module.forward(a, b);
  const unit = module.forward(affine(a, 0.5, 0.5), affine(b, 0.5, 0.5), { normalize: true });
  const stored = (x: Tensor): Tensor => reshape(x, [x.size, 1, 1, 1]);
  const outputs: Record<string, Tensor> = { lpips: stored(distance), lpips_normalize01: stored(unit.distance) };
  layers.forEach((layer, i) => {
    outputs[`layer${i}`] = stored(layer);
  });
  return { module, feeds, outputs };
}

interface LoraConfig {
  r: number;
  lora_alpha: number;
  adapter: string;
  padding: Record<string, number>;
  stride: Record<string, number>;
}

const convNames = ['conv', 'conv_s2', 'conv1x1'] as const;

class LoraChain extends Module {
  readonly conv: LoraLayer;
  readonly conv_s2: LoraLayer;
  readonly conv1x1: LoraLayer;
  readonly linear: LoraLayer;

  constructor(golden: Golden, config: LoraConfig) {
    super();
    const adapted = (name: string): LoraLayer => {
      const [outputs, inputs, kernel] = golden.shape(`weights.${name}.base_layer.weight`);
      const bias = golden.has(`weights.${name}.base_layer.bias`);
      const base = kernel
        ? new Conv2d(inputs, outputs, kernel, { bias, stride: config.stride[name], padding: config.padding[name] })
        : new Linear(inputs, outputs, { bias });
      const layer = new LoraLayer(base);
      layer.addAdapter({ adapter: config.adapter, rank: config.r, alpha: config.lora_alpha });
      return layer;
    };
    this.conv = adapted('conv');
    this.conv_s2 = adapted('conv_s2');
    this.conv1x1 = adapted('conv1x1');
    this.linear = adapted('linear');
  }
}

/** The file's chain: convolution, SiLU, convolution, SiLU, convolution, tokens, linear. */
function chain(x: Tensor, layers: Record<string, (x: Tensor) => Tensor>): Tensor {
  const h = layers.conv1x1(silu(layers.conv_s2(silu(layers.conv(x)))));
  return layers.linear(reshape(h, [h.shape[0], h.shape[1] * h.shape[2], h.shape[3]]));
}

export function lora(golden: Golden): Traced {
  const module = new LoraChain(golden, golden.json<LoraConfig>('config'));
  const feeds = feedsOf(golden, ['x']);
  const x = toNhwc(feeds['in.x']);
  const names = [...convNames, 'linear'] as const;
  const outputs: Record<string, Tensor> = {
    conv: toNchw(module.conv.forward(x)),
    y: chain(x, Object.fromEntries(names.map((name) => [name, (h: Tensor) => module[name].forward(h)]))),
    y_merged: chain(x, Object.fromEntries(names.map((name) => [name, (h: Tensor) => merged(module[name], h)]))),
  };
  for (const name of names) outputs[`merged.${name}.weight`] = module[name].mergedWeight();
  return { module, feeds, outputs };
}

function merged(layer: LoraLayer, x: Tensor): Tensor {
  const base = layer.base_layer;
  const weight = layer.mergedWeight();
  if (base instanceof Linear) return linear(x, weight, base.bias?.value);
  return conv2d(x, weight, base.bias?.value, { stride: base.stride, padding: base.padding });
}
