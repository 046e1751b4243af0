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
 * A frozen copy: `copy`, made like `original`, keeps parameters of its own where the original's train ({@link copyValues} gives
 * them values), and shares all others.
 */
export function frozenBeside<M extends Module>(copy: M, original: M): M {
  const originals = original.namedParameters();
  copy.train(false);
  return copy.replaceParameters((key, own) => {
    const shared = originals.get(key);
    return shared && !shared.trainable ? shared : own;
  });
}

/** Gives `copy`, made like `original`, the values that the original has now, but for what has values. */
export async function copyValues(parameters: Parameters, copy: Module, original: Module): Promise<void> {
  const originals = original.namedParameters();
  for (const [key, { value }] of copy.namedParameters()) {
    if (parameters.has(value)) continue;
    const data = await parameters.read(originals.get(key)!.value);
    parameters.add(value, { data, frozen: true });
  }
}
