import { basename, dirname, resolve } from 'node:path';
import { readBytes } from '../image/files.ts';
import { UsageError } from './failure.ts';

/** {@link findCaptions}; a picture without one is an error. */
export async function readCaptions(path: string): Promise<(file: string) => string> {
  const find = await findCaptions(path);
  return (file) => {
    const caption = find(file);
    if (caption === undefined) throw new UsageError(`${path} has no caption for ${file}`);
    return caption;
  };
}

/** The captions of a file by picture: a line that gives its path counts before one that gives its name alone. */
export async function findCaptions(path: string): Promise<(file: string) => string | undefined> {
  const known = new Map<string, string>();
  const lines = (await readBytes(path)).toString().split('\n');
  for (const [i, line] of lines.entries()) {
    if (!line.trim()) continue;
    const { image, caption } = parseLine(line, `${path}, line ${i + 1}`);
    const other = known.get(image);
    if (other !== undefined && other !== caption) throw new UsageError(`${path}: ${image} has two captions`);
    known.set(image, caption);
    known.set(resolve(image), caption);
    known.set(resolve(dirname(path), image), caption);
  }
  return (file) => known.get(file) ?? known.get(resolve(file)) ?? known.get(basename(file));
}

function parseLine(line: string, where: string): { image: string; caption: string } {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (cause) {
    throw new UsageError(`${where}: it is not JSON`, { cause });
  }
  const { image, caption } = (value ?? {}) as Record<string, unknown>;
  if (typeof image !== 'string' || typeof caption !== 'string') {
    throw new UsageError(`${where}: it needs an image and a caption, both strings`);
  }
  return { image, caption };
}
