import { ReflError } from '../errors.ts';
import { type Shape, sizeOf } from '../graph/tensor.ts';
import { type Entry, fileTypes, type WeightsFile } from './format.ts';
import { Instance } from './pickle.ts';
import { TorchTensor } from './torch_names.ts';

/** Where the bytes of storages lie. */
export type Locate = (key: string) => Promise<{ readonly offset: number; readonly bytes: number }>;

/** Keys under which checkpoints keep the weights, the better first, beside an optimizer's state and the like. */
const wrappers = ['state_dict', 'params_ema', 'params', 'model_state_dict'];

/** What DataParallel puts before every key. */
const parallel = 'module.';

const deepest = 32;
const mostValues = 1_000_000;
const mostCharacters = 1 << 26;
const longestMetadata = 1 << 20;
const longestShown = 200;

/**
 * The weights in what a checkpoint's pickle holds: those of its state dict where it is wrapped in one of the known ways, else
 * all its tensors, nested names joined by dots. Numbers, strings and lists of them become metadata, lists as JSON.
 * Throws ERR_WEIGHTS where there are no tensors, where objects hold themselves, and where storages are too small.
 */
export async function weightsOf(path: string, root: unknown, locate: Locate): Promise<WeightsFile> {
  const { tensors, metadata } = collect(path, root);
  if (!tensors.size) throw new ReflError('ERR_WEIGHTS', `${path}: it holds no tensors`);
  const places = new Map<string, Awaited<ReturnType<Locate>>>();
  const entries = new Map<string, Entry>();
  const parallelised = [...tensors.keys()].every((key) => key.startsWith(parallel));
  for (const [key, tensor] of tensors) {
    const storage = tensor.storage.key;
    const place = places.get(storage) ?? (await locate(storage));
    places.set(storage, place);
    entries.set(parallelised ? key.slice(parallel.length) : key, entryOf(`${path}: ${key}`, path, tensor, place));
  }
  return { path, metadata, entries };
}

interface Found {
  readonly tensors: Map<string, TorchTensor>;
  readonly metadata: Record<string, string>;
}

function collect(path: string, root: unknown): Found {
  const walk = new Walk(path);
  let state = stateOf(root);
  const unwrapped = new Set<unknown>();
  for (let inner = wrapped(state); inner && !unwrapped.has(inner); inner = wrapped(state)) {
    walk.plain(state as Map<unknown, unknown>);
    unwrapped.add(state);
    state = inner;
  }
  walk.all(state, '', 0);
  return walk;
}

/** An object's attributes, as of a TorchScript module. */
const stateOf = (value: unknown): unknown => (value instanceof Instance ? value.state : value);

/** The state dict inside a dictionary that holds no tensors itself. */
function wrapped(state: unknown): unknown {
  if (!(state instanceof Map) || [...state.values()].some((value) => value instanceof TorchTensor)) return undefined;
  const name = wrappers.find((key) => state.get(key) instanceof Map);
  return name === undefined ? undefined : state.get(name);
}

/** A walk through what a pickle holds, to each object as often as it occurs. */
class Walk implements Found {
  readonly tensors = new Map<string, TorchTensor>();
  readonly metadata: Record<string, string> = {};
  readonly #path: string;
  readonly #above = new Set<unknown>();
  #values = 0;
  #characters = 0;
  #noted = 0;

  constructor(path: string) {
    this.#path = path;
  }

  /** Notes the plain values of a dictionary, and nothing below it. */
  plain(dictionary: Map<unknown, unknown>): void {
    for (const [key, value] of dictionary) this.#note(nameOf(key) ?? '', value);
  }

  all(value: unknown, name: string, depth: number): void {
    const bad = (why: string): ReflError =>
      new ReflError('ERR_WEIGHTS', `${this.#path}: ${name.slice(0, longestShown) || 'it'} ${why}`);
    this.#values += Array.isArray(value) ? value.length : 1;
    this.#characters += name.length;
    if (this.#values > mostValues) throw bad(`comes after more than ${mostValues} values, which no weights have`);
    if (this.#characters > mostCharacters) throw bad('comes after names too long for weights');
    const inner = stateOf(value);
    if (inner instanceof TorchTensor) {
      this.tensors.set(name || 'tensor', inner);
    } else if ((inner instanceof Map || Array.isArray(inner)) && !this.#note(name, inner)) {
      if (this.#above.has(inner)) throw bad('holds itself');
      if (depth === deepest) throw bad(`is nested more than ${deepest} deep`);
      this.#above.add(inner);
      for (const [key, item] of inner.entries()) {
        const part = nameOf(key);
        if (part !== undefined) this.all(item, name ? `${name}.${part}` : part, depth + 1);
      }
      this.#above.delete(inner);
    } else {
      this.#note(name, inner);
    }
  }

  /** Makes metadata of a string, a number or a list of them, and says whether it was one. */
  #note(name: string, value: unknown): boolean {
    if (!(Array.isArray(value) ? value.every(isPlain) : isPlain(value))) return false;
    if (typeof value === 'string' && value.length > longestMetadata) return true;
    const text = typeof value === 'string' ? value : JSON.stringify(value);
    this.#noted += text.length;
    if (name && this.#noted <= longestMetadata) this.metadata[name] = text;
    return true;
  }
}

const isPlain = (value: unknown): boolean => ['string', 'number', 'boolean'].includes(typeof value);

const nameOf = (key: unknown): string | undefined =>
  typeof key === 'string' || typeof key === 'number' ? String(key) : undefined;

function entryOf(where: string, path: string, tensor: TorchTensor, place: Awaited<ReturnType<Locate>>): Entry {
  const { storage, offset, shape, strides } = tensor;
  const width = fileTypes[storage.dtype];
  const needed = (storage.first + storage.values) * width;
  if (needed > place.bytes) {
    const has = `the file has ${place.bytes} bytes of it`;
    throw new ReflError('ERR_WEIGHTS', `${where}: its storage ${storage.key} takes ${needed} bytes, ${has}`);
  }
  const bytes = sizeOf(shape) * width;
  if (!Number.isSafeInteger(bytes)) throw new ReflError('ERR_WEIGHTS', `${where}: [${shape}] is too large a shape`);
  // A view without values may begin anywhere, also where there is no file any more.
  const first = place.offset + (bytes ? (storage.first + offset) * width : 0);
  const piece = { path, offset: first, shape, ...(isInRows(shape, strides) ? {} : { strides }) };
  return { dtype: storage.dtype, shape, bytes, pieces: [piece] };
}

/** Whether a view's values lie one after the other. */
function isInRows(shape: Shape, strides: Shape): boolean {
  let row = 1;
  for (let i = shape.length; i-- > 0; ) {
    if (shape[i] > 1 && strides[i] !== row) return shape.includes(0);
    row *= shape[i];
  }
  return true;
}
