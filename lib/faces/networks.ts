import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { foldWeights, readManifest, type Stored } from '../models/faceapi_weights.ts';
import type { Module } from '../nn/module.ts';
import type { Parameters } from '../runtime/index.ts';

const folder = join(dirname(createRequire(import.meta.url).resolve('@vladmandic/face-api/package.json')), 'model');

/**
 * Makes one of the package's networks, with its weights as frozen parameters.
 *
 * @param name of the file in its folder `model`, without `_model-weights_manifest.json`
 * @param make the module, given the stored tensors
 */
export async function loadNetwork<M extends Module>(
  parameters: Parameters,
  name: string,
  make: (stored: ReadonlyMap<string, Stored>) => M,
): Promise<M> {
  const stored = await readManifest(join(folder, `${name}_model-weights_manifest.json`));
  const module = make(stored).train(false);
  const weights = foldWeights(module, stored);
  for (const [key, { value }] of module.namedParameters())
    parameters.add(value, { frozen: true, data: weights.get(key) });
  return module;
}
