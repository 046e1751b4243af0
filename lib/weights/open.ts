import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { ReflError } from '../errors.ts';
import { readBytes, withFile } from './files.ts';
import { type Entry, largestHeader, type WeightsFile } from './format.ts';
import { openSafetensors } from './safetensors.ts';
import { openSharded, verifyAll } from './sharded.ts';
import { openTorchStream } from './torch_stream.ts';
import { openTorchZip } from './torch_zip.ts';

/**
 * Opens weights in whatever form they are, which their content says and not their name: a safetensors file, a checkpoint of
 * PyTorch (zip, TorchScript or the stream of before 1.6), an index (`*.index.json`) of either in shards, or a folder of
 * diffusers, whose parts' keys begin with the part's name (`unet.conv_in.weight`). Nothing is read but what describes the
 * tensors, and nothing in a file is ever run.
 *
 * Throws ERR_FILE where something cannot be read, ERR_WEIGHTS where it is damaged or in no such form.
 */
export async function openWeights(path: string): Promise<WeightsFile> {
  const info = await stat(path).catch((cause) => {
    throw new ReflError('ERR_FILE', `cannot read ${path}: ${cause.message}`, { cause });
  });
  return info.isDirectory() ? openFolder(path) : openFile(path);
}

async function openFile(path: string, isShard = false): Promise<WeightsFile> {
  const start = await withFile(path, (file) => readBytes(file, 0, 512));
  // First, because the length that it begins with may look like anything.
  if (start[8] === 0x7b && start.readBigUInt64LE() <= largestHeader) return openSafetensors(path);
  if (start.subarray(0, 4).equals(Buffer.from('PK\x03\x04'))) return openTorchZip(path);
  if (start[0] === 0x80 && start[1] <= 5) return openTorchStream(path);
  const isIndex = /^\s*\{/.test(start.toString('latin1'));
  // An index of indices could lead back to itself.
  if (isIndex && !isShard) return openSharded(path, (shard) => openFile(shard, true));
  const other = others.find(({ at = 0, sign }) => start.subarray(at, at + sign.length).toString('latin1') === sign);
  const unknown = 'in no form that is known: neither safetensors, nor a checkpoint of PyTorch, nor an index';
  throw new ReflError(
    'ERR_WEIGHTS',
    `${path} is ${isIndex ? 'an index where weights should be' : (other?.is ?? unknown)}`,
  );
}

/** What is often found where weights should be. */
const others: readonly { readonly at?: number; readonly sign: string; readonly is: string }[] = [
  { sign: 'version https://git-lfs', is: 'a pointer of Git LFS: fetch the file itself (git lfs pull)' },
  { sign: '<', is: 'a page of HTML or XML: the download failed, fetch the file again' },
  { sign: 'PK\x05\x06', is: 'an empty zip archive' },
  { sign: 'GGUF', is: 'a GGUF file, which cannot be read: use a safetensors or PyTorch file' },
  { sign: '\x89HDF', is: 'an HDF5 file, which cannot be read: use a safetensors or PyTorch file' },
  { at: 257, sign: 'ustar', is: 'a tar archive: unpack it, or save its weights again with PyTorch 1.0 or later' },
];

/** Names that diffusers and transformers give to a part's weights, the better first. */
const partFiles = ['diffusion_pytorch_model', 'model', 'pytorch_model'].flatMap((name) =>
  ['.safetensors', '.safetensors.index.json', '.bin', '.bin.index.json'].map((ending) => `${name}${ending}`),
);

async function openFolder(path: string): Promise<WeightsFile> {
  const names = await list(path);
  const own = partFile(names);
  if (own) return { ...(await openFile(join(path, own))), path };
  const parts: WeightsFile[] = [];
  const entries = new Map<string, Entry>();
  for (const { name, isFolder } of names) {
    if (!isFolder || ignored.test(name)) continue;
    const file = partFile(await list(join(path, name)));
    if (!file) continue;
    const part = await openFile(join(path, name, file));
    parts.push(part);
    for (const [key, entry] of part.entries) entries.set(`${name}.${key}`, entry);
  }
  if (entries.size) return { path, metadata: {}, entries, verify: verifyAll(parts) };
  const known = partFiles.filter((name) => !name.endsWith('.json')).join(', ');
  throw new ReflError(
    'ERR_WEIGHTS',
    `${path} is a folder without weights: neither it nor a folder in it holds ${known}`,
  );
}

/** The same in half precision: an index has `fp16` in either place. */
const halfFiles = partFiles.flatMap((name) => [
  name.replace(/\.(safetensors|bin)/, '.fp16.$1'),
  ...(name.endsWith('.json') ? [name.replace(/json$/, 'fp16.json')] : []),
]);

/** Parts of pipelines that restore nothing. */
const ignored = /^(safety_checker|feature_extractor|tokenizer|scheduler|\.)/;

interface Name {
  readonly name: string;
  readonly isFolder: boolean;
}

/** The weights of a folder; those of half precision where there are no others. */
const partFile = (names: readonly Name[]): string | undefined => {
  const has = (name: string): boolean => names.some((other) => other.name === name && !other.isFolder);
  return [...partFiles, ...halfFiles].find(has);
};

async function list(path: string): Promise<Name[]> {
  try {
    const found = await readdir(path, { withFileTypes: true });
    return found.map((item) => ({ name: item.name, isFolder: item.isDirectory() })).sort(byName);
  } catch (cause) {
    throw new ReflError('ERR_FILE', `cannot read the folder ${path}: ${(cause as Error).message}`, { cause });
  }
}

const byName = (a: Name, b: Name): number => (a.name < b.name ? -1 : 1);
