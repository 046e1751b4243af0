import type { DType } from '../../graph/dtype.ts';
import type { ControlLDM } from '../../models/diffbir.ts';
import type { OSEDiff } from '../../models/osediff.ts';
import { type Module, Parameter, withDType } from '../../nn/module.ts';
import type { Parameters } from '../../runtime/index.ts';

/** DiffBIR's set: the whole ControlNet trains, and nothing else. */
export function trainControlNet(model: ControlLDM): void {
  model.train(false);
  model.controlnet.train(true);
}

/** OSEDiff's set: the adapters of UNet and encoder, and the UNet's first convolution. */
export function trainAdapters(model: OSEDiff): void {
  for (const [key, parameter] of model.namedParameters()) {
    parameter.trainable = /\.lora_[AB]\./.test(key) || key.startsWith('unet.input_blocks.0.');
  }
}

/** Makes networks whose weights are kept in what they compute in, if that is not float32: {@link widenTrained} what trains. */
export const madeIn = <T>(compute: DType | undefined, make: () => T): T =>
  compute ? withDType(compute, make) : make();

/**
 * Makes what trains float32, in modules that were made with 16 bits: networks round it at every use, and small steps are kept. Before
 * parameters get values.
 */
export const widenTrained = <M extends Module>(module: M): M =>
  module.replaceParameters((_, parameter) => {
    const { value, init, trainable } = parameter;
    return trainable && value.dtype !== 'f32' ? withDType('f32', () => new Parameter(value.shape, init)) : parameter;
  });

/**
 * A frozen copy: `copy`, made like `original`, with or without its adapters, keeps parameters of its own where the original's
 * train ({@link copyValues} gives them values), and shares all others.
 */
export function frozenBeside<M extends Module>(copy: M, original: M): M {
  const originals = original.namedParameters();
  copy.train(false);
  return copy.replaceParameters((key, own) => {
    const shared = originals.get(key) ?? originals.get(key.replace(/[^.]+$/, 'base_layer.$&'));
    return shared && !shared.trainable ? shared : own;
  });
}

/** Gives `copy`, made like `from`, the values that the original has now, but for what it shares and what neither reads. */
export async function copyValues(parameters: Parameters, copy: Module, from: Module): Promise<void> {
  const originals = from.namedParameters();
  for (const [key, { value }] of copy.namedParameters()) {
    const original = originals.get(key)!.value;
    if (parameters.has(value) || !parameters.has(original)) continue;
    parameters.add(value, { data: await parameters.read(original), frozen: true });
  }
}
