import { ReflError } from '../errors.ts';
import { type Shape, sameShape, sizeOf, type Tensor } from '../graph/tensor.ts';
import type { Parameters } from '../runtime/index.ts';
import type { Entry, WeightsFile } from './format.ts';

/** What loading needs to know of a module tree. */
export interface Loadable {
  namedParameters(): Map<string, { readonly value: Tensor; readonly trainable: boolean }>;
  namedBuffers(): Map<string, unknown>;
}

export interface LoadOptions {
  /** What precedes the module's keys in the file; keys that do not begin with it belong to other modules. */
  prefix?: string;
  /** Whether all parameters become frozen; by default those that are not trainable do. */
  frozen?: boolean;
}

/** Stored types that become floating parameters. */
const loadable = ['F32', 'F16', 'BF16', 'F64'];

/** Faults that one message lists: more than any network has tensors, and fewer than a hostile file may have. */
const mostFaults = 2000;

/**
 * Adds every parameter of `module` to `parameters`, with its values from `file`. Stored buffers are accepted and left
 * aside, since shapes determine them. One ERR_WEIGHTS counts and lists all keys that are missing, unexpected, of another
 * shape or of a type that holds no weights; another says which values lack the file's own checksum, where it has any. Nothing
 * is loaded then.
 */
export async function loadWeights(
  parameters: Parameters,
  module: Loadable,
  file: WeightsFile,
  { prefix = '', frozen }: LoadOptions = {},
): Promise<void> {
  const wanted = module.namedParameters();
  const faults = findFaults(wanted, module.namedBuffers(), file, prefix);
  if (faults.length) {
    const missing = faults.filter((fault) => fault.startsWith('missing: ')).length;
    const counted = `${missing} of ${wanted.size} tensors are missing, ${faults.length - missing} are wrong`;
    const list = faults.slice(0, mostFaults).join('\n  ');
    throw new ReflError('ERR_WEIGHTS', `${file.path} does not fit the model: ${counted}:\n  ${list}`);
  }
  await file.verify?.();
  for (const [key, { value, trainable }] of wanted) {
    const { dtype, pieces } = file.entries.get(prefix + key)!;
    const slices = pieces.map((piece) => ({ ...piece, dtype }));
    const options = { frozen: frozen ?? !trainable };
    if (slices.length === 1 && !slices[0].strides) await parameters.load(value, slices[0], options);
    else await parameters.gather(value, slices, options);
  }
}

function findFaults(
  wanted: ReturnType<Loadable['namedParameters']>,
  buffers: Map<string, unknown>,
  { entries }: WeightsFile,
  prefix: string,
): string[] {
  const faults: string[] = [];
  for (const [key, { value }] of wanted) {
    const entry = entries.get(prefix + key);
    const want = `[${value.shape.join(',')}]`;
    if (!entry) faults.push(`missing: ${prefix}${key} ${want}`);
    else if (!fits(entry.shape, value.shape))
      faults.push(`wrong shape: ${prefix}${key} is ${show(entry)}, needs ${want}`);
    else if (!loadable.includes(entry.dtype)) faults.push(`wrong type: ${prefix}${key} is ${show(entry)}`);
  }
  for (const [key, entry] of entries) {
    if (!key.startsWith(prefix)) continue;
    const own = key.slice(prefix.length);
    if (!wanted.has(own) && !buffers.has(own)) faults.push(`unexpected: ${key} ${show(entry)}`);
  }
  return faults;
}

/** A single value is stored as [] by some programs and as [1] by others. */
const fits = (stored: Shape, wanted: Shape): boolean =>
  sameShape(stored, wanted) || (stored.length < 2 && wanted.length < 2 && sizeOf(stored) === 1 && sizeOf(wanted) === 1);

const show = ({ dtype, shape }: Entry): string => `${dtype}[${shape.join(',')}]`;
