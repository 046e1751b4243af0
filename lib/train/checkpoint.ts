import { ReflError } from '../errors.ts';
import type { Tensor } from '../graph/tensor.ts';
import type { Parameters } from '../runtime/index.ts';
import { loadWeights } from '../weights/load.ts';
import { readTensor } from '../weights/read.ts';
import { openSafetensors } from '../weights/safetensors.ts';
import { type Source, writeSafetensors } from '../weights/write.ts';

/** Persistent tensors by the keys they have in a checkpoint. */
export type Leaves = ReadonlyMap<string, Tensor>;

/** What has the values of leaves: parameters of a device, or the host's memory. */
export type Store = Pick<Parameters, 'has' | 'read' | 'write'>;

/** Writes leaves' values under their keys, atomically, with `metadata` beside them. */
export async function saveCheckpoint(
  path: string,
  parameters: Store,
  leaves: Leaves,
  metadata: Readonly<Record<string, string>>,
  dtype: 'F32' | 'F16' = 'F32',
): Promise<void> {
  const sources = [...leaves].map(([key, leaf]): [string, Source] => [
    key,
    { dtype, shape: leaf.shape, data: () => parameters.read(leaf) },
  ]);
  await writeSafetensors(path, new Map(sources), metadata);
}

/** Reads a checkpoint into leaves that have no buffers yet. Its keys must be exactly theirs. */
export async function loadCheckpoint(path: string, parameters: Parameters, leaves: Leaves): Promise<void> {
  const file = await openSafetensors(path);
  const trained = new Map([...leaves].map(([key, value]) => [key, { value, trainable: true }]));
  await loadWeights(parameters, { namedParameters: () => trained, namedBuffers: () => new Map() }, file);
}

/**
 * Replaces the values of leaves that have buffers by a checkpoint's. Throws ERR_CHECKPOINT unless its keys are exactly theirs.
 *
 * @param partly keep the values of leaves that it lacks instead
 */
export async function overwriteFrom(path: string, parameters: Store, leaves: Leaves, partly = false): Promise<void> {
  const file = await openSafetensors(path);
  const strange = [...file.entries.keys()].find((key) => !leaves.has(key));
  const missing = partly ? undefined : [...leaves.keys()].find((key) => !file.entries.has(key));
  if (strange !== undefined || missing !== undefined) {
    const what = strange === undefined ? `lacks ${missing}` : `holds ${strange}, which does not train`;
    throw new ReflError('ERR_CHECKPOINT', `${path} ${what}: it belongs to another run`);
  }
  for (const [key, leaf] of leaves) {
    if (file.entries.has(key)) parameters.write(leaf, await readTensor(file, key));
  }
}
