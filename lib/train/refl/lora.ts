import { ReflError } from '../../errors.ts';
import { input } from '../../graph/tensor.ts';
import type { ControlLDM } from '../../models/diffbir.ts';
import { addLora, LoraLayer } from '../../nn/lora.ts';
import type { Module } from '../../nn/module.ts';
import type { Stages } from '../../restore/stages.ts';
import { evaluate } from '../../runtime/index.ts';
import type { WeightsFile } from '../../weights/format.ts';
import { loadWeights } from '../../weights/load.ts';
import { type Source, writeSafetensors } from '../../weights/write.ts';

/** Low-rank adapters that train in the place of whole weights (Hu et al. 2021). */
export interface LoraSettings {
  readonly rank: number;
  /** A regular expression: layers whose paths it finds get an adapter. {@link mostLayers} is the default. */
  readonly layers: string;
  /** Of what adapters begin with. */
  readonly seed: number;
}

/** All layers but those of the timestep, as OSEDiff has it. */
export const mostLayers = '^(?!time_embed|.*\\.emb_layers\\.)';

/**
 * DiffBIR's set with adapters: those beside layers of the ControlNet train, and nothing else. They change nothing at first. Throws
 * ERR_OPTION where the expression is none or finds no layer.
 */
export function trainLora(model: ControlLDM, { rank, layers }: LoraSettings): void {
  const bad = (why: string): ReflError => new ReflError('ERR_OPTION', `layers for LoRA: ${layers} ${why}`);
  let pattern: RegExp;
  try {
    pattern = new RegExp(layers);
  } catch (cause) {
    throw bad(`is no regular expression: ${(cause as Error).message}`);
  }
  model.train(false);
  const all: string[] = [];
  const adapted = addLora(model.controlnet, { adapter: 'default', rank }, (path) => {
    all.push(path);
    return pattern.test(path);
  });
  if (!adapted.length) throw bad(`finds none of ${all.slice(0, 3).join(', ')} and ${all.length - 3} others`);
  // Names what is new.
  model.namedParameters();
}

/**
 * Writes a network with the adapters of `adapted` folded into its weights, under its own keys: whoever reads those needs to
 * know nothing of adapters. All is float32, also where `adapted` keeps rounded weights.
 *
 * @param plain the same network without adapters and without values
 * @param file of the weights that the adapters began beside
 */
export async function saveFolded(
  path: string,
  { device, parameters }: Stages,
  { adapted, plain, file }: { adapted: Module; plain: Module; file: WeightsFile },
): Promise<void> {
  using base = device.parameters();
  await loadWeights(base, plain, file, { frozen: true });
  const layers = new Map([...adapted.namedModules()].map(([key, layer]) => [`${key}.weight`, layer]));
  const sources = [...plain.namedParameters()].map(([key, { value }]): [string, Source] => {
    const layer = layers.get(key);
    const data = async () => {
      const values = await base.read(value);
      if (!(layer instanceof LoraLayer)) return values;
      const merged = layer.mergedWeight(input('base', value.shape));
      return (await evaluate(device, { merged }, { base: values }, parameters)).merged;
    };
    return [key, { dtype: 'F32', shape: value.shape, data }];
  });
  await writeSafetensors(path, new Map(sources), { format: 'pt' });
}
