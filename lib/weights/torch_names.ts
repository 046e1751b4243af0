import { ReflError } from '../errors.ts';
import type { Shape } from '../graph/tensor.ts';
import { type FileType, fileTypes } from './format.ts';
import { Global, Instance } from './pickle.ts';

/** Values of one type in a row, which tensors are views of. */
export class TorchStorage {
  /** Names the bytes: all storages of one key share them. */
  readonly key: string;
  readonly dtype: FileType;
  /** Its values under that key, and how many come before them: a storage may itself be a part. */
  readonly values: number;
  readonly first: number;

  constructor(key: string, dtype: FileType, values: number, first: number) {
    this.key = key;
    this.dtype = dtype;
    this.values = values;
    this.first = first;
  }
}

/** A view of a storage, which holds all of it. */
export class TorchTensor {
  readonly storage: TorchStorage;
  /** The first value, counted from the storage's first. */
  readonly offset: number;
  readonly shape: Shape;
  readonly strides: Shape;

  constructor(storage: TorchStorage, offset: number, shape: Shape, strides: Shape) {
    this.storage = storage;
    this.offset = offset;
    this.shape = shape;
    this.strides = strides;
  }
}

/** A class of storages, or a dtype. */
class TorchType extends Global {
  readonly dtype: FileType;

  constructor(name: string, dtype: FileType) {
    super(name);
    this.dtype = dtype;
  }
}

const storageTypes: Readonly<Record<string, FileType>> = {
  'torch.FloatStorage': 'F32',
  'torch.DoubleStorage': 'F64',
  'torch.HalfStorage': 'F16',
  'torch.BFloat16Storage': 'BF16',
  'torch.LongStorage': 'I64',
  'torch.IntStorage': 'I32',
  'torch.ShortStorage': 'I16',
  'torch.CharStorage': 'I8',
  'torch.ByteStorage': 'U8',
  'torch.BoolStorage': 'BOOL',
  // Bytes, whose type the tensor brings.
  'torch.storage.UntypedStorage': 'U8',
};

const dtypes: Readonly<Record<string, FileType>> = {
  'torch.float32': 'F32',
  'torch.float64': 'F64',
  'torch.float16': 'F16',
  'torch.bfloat16': 'BF16',
  'torch.int64': 'I64',
  'torch.int32': 'I32',
  'torch.int16': 'I16',
  'torch.int8': 'I8',
  'torch.uint8': 'U8',
  'torch.uint16': 'U16',
  'torch.uint32': 'U32',
  'torch.uint64': 'U64',
  'torch.bool': 'BOOL',
  'torch.float8_e4m3fn': 'F8_E4M3',
  'torch.float8_e5m2': 'F8_E5M2',
};

/** Objects that checkpoints hold beside their weights: taken without looking into them, so nothing of them is run. */
const inert = [
  'torch.device',
  'argparse.Namespace',
  'numpy.dtype',
  'numpy.ndarray',
  'numpy.core.multiarray.scalar',
  'numpy.core.multiarray._reconstruct',
  'numpy._core.multiarray.scalar',
  'numpy._core.multiarray._reconstruct',
  '_codecs.encode',
  'pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint',
  'lightning.pytorch.callbacks.model_checkpoint.ModelCheckpoint',
  ...['bytearray', 'complex', 'int', 'float', 'bool', 'str'].flatMap((name) => [
    `builtins.${name}`,
    `__builtin__.${name}`,
  ]),
];

/** Modules of a TorchScript archive: their attributes are their state. */
const scriptModule = /^__torch__\./;

/**
 * What a PyTorch checkpoint may refer to: tensors, parameters, their storages and types, containers, and some objects that
 * are left aside. Anything else throws an ERR_WEIGHTS that begins with `where` and names it; no name ever leads to code
 * other than what stands here.
 */
export function torchGlobals(where: string): (name: string) => Global {
  const bad = (why: string): ReflError => new ReflError('ERR_WEIGHTS', `${where}: ${why}`);
  const functions: Record<string, (args: readonly unknown[]) => unknown> = {
    'collections.OrderedDict': ([pairs]) => toMap(pairs, bad),
    'collections.defaultdict': ([, pairs]) => toMap(pairs, bad),
    'collections.Counter': ([counts]) => toMap(counts, bad),
    'torch.Size': ([sizes]) => sizes ?? [],
    'torch._utils._rebuild_tensor': (args) => view(args, bad),
    'torch._utils._rebuild_tensor_v2': (args) => view(args, bad),
    'torch._utils._rebuild_tensor_v3': (args) => view([retyped(args[0], args[6], bad), ...args.slice(1)], bad),
    'torch._utils._rebuild_parameter': ([data]) => tensor(data, bad),
    'torch._utils._rebuild_parameter_with_state': ([data]) => tensor(data, bad),
    'torch._tensor._rebuild_from_type_v2': ([rebuild, , args]) => {
      const plain = rebuild instanceof Global && rebuild.name.startsWith('torch._utils.');
      if (!(plain && rebuild.call && Array.isArray(args))) throw bad('a tensor cannot be rebuilt');
      return tensor(rebuild.call(args), bad);
    },
  };
  for (const python of ['builtins', '__builtin__']) {
    functions[`${python}.dict`] = ([pairs]) => toMap(pairs, bad);
    for (const list of ['list', 'tuple', 'set', 'frozenset']) functions[`${python}.${list}`] = ([items]) => items ?? [];
  }
  const known = new Map<string, Global>();
  for (const [name, call] of Object.entries(functions)) known.set(name, new Global(name, call));
  for (const name of inert) known.set(name, new Global(name, () => new Instance(name)));
  for (const [name, dtype] of Object.entries({ ...storageTypes, ...dtypes }))
    known.set(name, new TorchType(name, dtype));
  for (const name of ['torch.nn.parameter.Parameter', 'torch.Tensor']) known.set(name, new Global(name));

  return (name) => {
    if (scriptModule.test(name)) return new Global(name, () => new Instance(name));
    const global = known.get(name);
    if (global) return global;
    throw bad(
      `it asks for ${JSON.stringify(name)}, which weights do not need, and is refused; nothing in it was run. ` +
        'If you trust its source, save the state dict alone: torch.save(model.state_dict(), FILE)',
    );
  };
}

/** The storage that a persistent id stands for: ('storage', type, key, device, values, view of another), the last optional. */
export function torchStorage(id: unknown, where: string): TorchStorage {
  const bad = (why: string): ReflError => new ReflError('ERR_WEIGHTS', `${where}: ${why}`);
  const [kind, type, key, , values, part] = Array.isArray(id) ? id : [];
  if (kind !== 'storage' || !(type instanceof TorchType) || typeof key !== 'string' || key.length > longestKey) {
    throw bad("it refers to data that is no tensor's");
  }
  const [, first = 0, own = values] = Array.isArray(part) ? part : [];
  if (!isCount(values) || !isCount(first) || !isCount(own) || first + own > values) {
    throw bad(`the storage ${key} has an impossible size`);
  }
  return new TorchStorage(key, type.dtype, own, first);
}

type Bad = (why: string) => ReflError;

const longestKey = 200;
/** PyTorch's own limit. */
const mostAxes = 64;

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

const isShape = (value: unknown): value is number[] =>
  Array.isArray(value) && value.length <= mostAxes && value.every(isCount);

function toMap(pairs: unknown, bad: Bad): Map<unknown, unknown> {
  if (pairs === undefined) return new Map();
  if (pairs instanceof Map) return new Map(pairs);
  if (Array.isArray(pairs) && pairs.every((pair) => Array.isArray(pair) && pair.length === 2)) return new Map(pairs);
  throw bad('a dictionary is made of what is no list of pairs');
}

function tensor(value: unknown, bad: Bad): TorchTensor {
  if (value instanceof TorchTensor) return value;
  throw bad('a parameter is made of what is no tensor');
}

/** A storage of bytes as one of the dtype that a tensor names. */
function retyped(storage: unknown, type: unknown, bad: Bad): TorchStorage {
  if (!(storage instanceof TorchStorage && type instanceof TorchType))
    throw bad('a tensor has no storage, or no dtype');
  const width = fileTypes[type.dtype] / fileTypes[storage.dtype];
  return new TorchStorage(storage.key, type.dtype, Math.floor(storage.values / width), storage.first / width);
}

function view([storage, offset, shape, strides]: readonly unknown[], bad: Bad): TorchTensor {
  if (!(storage instanceof TorchStorage)) throw bad('a tensor has no storage');
  if (!isCount(offset) || !isShape(shape) || !isShape(strides) || shape.length !== strides.length) {
    throw bad(`a tensor of the storage ${storage.key} has no proper shape and strides`);
  }
  const what = `a tensor [${shape}] with strides [${strides}]`;
  if (!shape.includes(0)) {
    const reach = shape.reduce((sum, extent, i) => sum + (extent - 1) * strides[i], offset + 1);
    if (reach > storage.values) {
      throw bad(`${what} needs ${reach} values of the storage ${storage.key}, which has ${storage.values}`);
    }
    if (overlaps(shape, strides)) throw bad(`${what} has values that overlap: save a copy of it, by contiguous()`);
  }
  return new TorchTensor(storage, offset, shape, strides);
}

/** Whether two values of a view may lie in one place other than by a stride of 0, which repeats whole parts. */
function overlaps(shape: Shape, strides: Shape): boolean {
  const axes = shape.map((extent, i) => ({ extent, stride: strides[i] }));
  const apart = axes.filter(({ extent, stride }) => extent > 1 && stride > 0).sort((a, b) => a.stride - b.stride);
  let reach = 0;
  for (const { extent, stride } of apart) {
    if (stride <= reach) return true;
    reach += (extent - 1) * stride;
  }
  return false;
}
