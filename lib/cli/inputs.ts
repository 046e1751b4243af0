import { readdir, realpath, stat } from 'node:fs/promises';
import { basename, extname, join, parse, resolve } from 'node:path';
import { ReflError } from '../errors.ts';
import { fileError, makeFolder } from '../image/files.ts';
import { UsageError } from './failure.ts';
import { Report } from './report.ts';

const extensions = ['.jpg', '.jpeg', '.png', '.webp', '.tif', '.tiff', '.gif', '.avif'];

interface Inputs {
  readonly files: readonly string[];
  /** Inputs that could not even be looked at. */
  readonly failures: readonly { readonly input: string; readonly error: ReflError }[];
}

/**
 * The files that `paths` name: a file stands for itself whatever its name, a folder for the image files directly in it, by
 * extension and in the order of their names. A file named twice counts once.
 */
export async function listInputs(paths: readonly string[]): Promise<Inputs> {
  const files = new Map<string, string>();
  const failures: { input: string; error: ReflError }[] = [];
  for (const path of paths) {
    try {
      const found = (await stat(path)).isDirectory() ? await imagesIn(path) : [path];
      // A link that leads nowhere is reported when its turn comes.
      for (const file of found) files.set(await realpath(file).catch(() => file), file);
    } catch (error) {
      failures.push({ input: path, error: error instanceof ReflError ? error : fileError('read', path, error) });
    }
  }
  return { files: [...new Set(files.values())], failures };
}

async function imagesIn(folder: string): Promise<string[]> {
  const names = (await readdir(folder)).filter(
    (name) => !name.startsWith('.') && extensions.includes(extname(name).toLowerCase()),
  );
  if (!names.length)
    throw new ReflError('ERR_FILE', `${folder}: no image files in this folder (${extensions.join(' ')})`);
  return names.sort().map((name) => join(folder, name));
}

/**
 * Where each file's result goes: OUT/<stem>.png. Files that share a stem keep their extension (a.jpg.png, a.tif.png). Throws
 * a {@link UsageError} where two results would still share a name, or one would overwrite an input.
 *
 * @param suffixes what is written for each file, such as `.png`
 */
function outputNames(files: readonly string[], out: string, suffixes: readonly string[]): Map<string, string> {
  const shared = new Map<string, number>();
  for (const file of files) shared.set(parse(file).name, (shared.get(parse(file).name) ?? 0) + 1);
  const names = new Map<string, string>();
  const taken = new Map<string, string>();
  const inputs = new Map(files.map((file) => [resolve(file), file]));
  for (const file of files) {
    const name = join(out, shared.get(parse(file).name)! > 1 ? basename(file) : parse(file).name);
    names.set(file, name);
    for (const path of suffixes.map((suffix) => resolve(name + suffix))) {
      const other = taken.get(path);
      if (other !== undefined)
        throw new UsageError(`${other} and ${file} would both be written to ${path}: restore them apart`);
      const overwritten = inputs.get(path);
      if (overwritten) throw new UsageError(`${overwritten} would be overwritten: give another folder with --out`);
      taken.set(path, file);
    }
  }
  return names;
}

/**
 * Everything that a command does before it opens a device: finds the files, reports inputs that are not there, names what will
 * be written, makes the folder.
 */
export async function prepare(
  inputs: readonly string[],
  out: string,
  json: boolean,
  suffixes: readonly string[],
): Promise<{ files: readonly string[]; names: ReadonlyMap<string, string>; report: Report }> {
  const { files, failures } = await listInputs(inputs);
  const names = outputNames(files, out, suffixes);
  await makeFolder(out);
  const report = new Report(files.length, json);
  for (const { input, error } of failures) report.fail(input, error);
  return { files, names, report };
}
