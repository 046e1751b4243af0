import { access } from 'node:fs/promises';
import { join, relative, sep } from 'node:path';
import { cutNote } from '../data/comparisons.ts';
import { Draws } from '../data/draws.ts';
import { JsonLinesFile, textOf, toJsonLines } from '../data/jsonl.ts';
import { ReflError } from '../errors.ts';
import { makeFolder, writeAtomic } from '../image/files.ts';

/** One way to restore a face. */
export interface Candidate {
  /** Names its files: letters, digits, dots, dashes and underscores. */
  readonly name: string;
  /** What decides its pictures, as it is recorded: model, seed, settings. */
  readonly recipe: Readonly<Record<string, string | number | boolean>>;
  /** Gets ready to restore; called once, and only if there is something to do. */
  open(): Promise<OpenCandidate>;
}

export interface OpenCandidate extends Disposable {
  /** A PNG of the restored picture, of the size of `path`'s. */
  restore(path: string, signal?: AbortSignal): Promise<Uint8Array>;
}

/** A picture of a face that is to be restored. */
export interface FaceInput {
  /** Names its folder. */
  readonly id: string;
  readonly path: string;
  readonly person: string;
  readonly caption?: string;
}

export interface CandidateOptions {
  readonly out: string;
  /** Candidates of each face, drawn from all where there are more; their pairs follow. */
  readonly perFace: number;
  readonly seed: number;
  readonly signal?: AbortSignal;
  /** Called with how many pictures there are, of how many. */
  readonly onDone?: (done: number, total: number) => void;
  /** A picture could not be made: its face is left out of the pairs. */
  readonly onFailed?: (face: FaceInput, error: unknown) => void;
}

export interface CandidateSummary {
  /** Pictures made now, and those that were there. */
  readonly made: number;
  readonly kept: number;
  readonly pairs: number;
  /** The file of pairs. */
  readonly output: string;
  readonly notes: readonly string[];
}

/**
 * Restores faces in several ways and pairs the results: OUT/<face>/<candidate>.png, a line for each in OUT/candidates.jsonl, and
 * OUT/pairs.jsonl, which `train svm` and `label` take. Started again, it makes what is missing. The candidates of a face, and
 * which of them is A, depend on the seed and its name alone.
 *
 * Throws ERR_OPTION where there are fewer candidates than a face needs, ERR_DATA where OUT holds pictures of another recipe,
 * ERR_FILE, also where another process writes there, and what `open` throws.
 */
export async function makeCandidates(
  faces: readonly FaceInput[],
  candidates: readonly Candidate[],
  options: CandidateOptions,
): Promise<CandidateSummary> {
  const { out, perFace, seed, signal, onDone, onFailed } = options;
  if (!(Number.isInteger(perFace) && perFace >= 2 && perFace <= candidates.length)) {
    const range = `a whole number from 2 to the number of candidates, ${candidates.length}`;
    throw new ReflError('ERR_OPTION', `perFace must be ${range}, got ${perFace}`);
  }
  await makeFolder(out);
  await using manifest = await JsonLinesFile.open(join(out, 'candidates.jsonl'));
  const known = new Map(manifest.lines.map((line) => [textOf(line, 'image'), line]));
  const chosen = new Map(
    faces.map((face) => [face, choose(candidates, perFace, new Draws(seed, ...Buffer.from(face.id)))]),
  );
  const failed = new Set<FaceInput>();
  const tally = { made: 0, kept: 0 };
  for (const candidate of candidates) {
    let open: OpenCandidate | undefined;
    try {
      for (const face of faces) {
        if (!chosen.get(face)!.includes(candidate)) continue;
        signal?.throwIfAborted();
        const image = imageOf(face, candidate);
        const record = {
          image,
          source: from(out, face.path),
          person: face.person,
          candidate: candidate.name,
          ...candidate.recipe,
        };
        const line = known.get(image);
        if (line && JSON.stringify(line.record) !== JSON.stringify(record)) {
          const both = `${JSON.stringify(line.record)}, not ${JSON.stringify(record)}`;
          throw new ReflError('ERR_DATA', `${line.where}: the picture was made with ${both}: give another folder`);
        }
        const path = join(out, image);
        if (line && (await exists(path))) tally.kept++;
        else {
          open ??= await candidate.open();
          try {
            await makeFolder(join(out, face.id));
            await writeAtomic(path, await open.restore(face.path, signal));
            if (!line) await manifest.append(record);
            tally.made++;
          } catch (error) {
            signal?.throwIfAborted();
            // What is wrong with the candidate is wrong for every face.
            if (error instanceof ReflError && error.code === 'ERR_OPTION') throw error;
            failed.add(face);
            onFailed?.(face, error);
          }
        }
        onDone?.(tally.made + tally.kept, faces.length * perFace);
      }
    } finally {
      open?.[Symbol.dispose]();
    }
  }
  const pairs = faces.filter((face) => !failed.has(face)).flatMap((face) => pairsOf(face, chosen.get(face)!, out));
  const output = join(out, 'pairs.jsonl');
  await writeAtomic(output, toJsonLines(pairs));
  return { ...tally, pairs: pairs.length, output, notes: cutNote(join(out, 'candidates.jsonl'), manifest.cut) };
}

/** A path as files in a folder have it, so that they may move together. */
const from = (folder: string, path: string): string => relative(folder, path).replaceAll(sep, '/');

const imageOf = ({ id }: FaceInput, { name }: Candidate): string => `${id}/${name}.png`;

/** `count` of the candidates, in an order that hides from people which is which. */
function choose(candidates: readonly Candidate[], count: number, draws: Draws): Candidate[] {
  const rest = [...candidates];
  return Array.from({ length: count }, () => rest.splice(draws.below(rest.length), 1)[0]);
}

/** Every pair of a face's candidates, as a file of pairs in the folder `out` has it. */
function pairsOf(face: FaceInput, candidates: readonly Candidate[], out: string): object[] {
  const { id, person, caption } = face;
  const input = from(out, face.path);
  return candidates.flatMap((first, i) =>
    candidates.slice(i + 1).map((second, j) => ({
      pair: `${id}-${i}${i + 1 + j}`,
      person,
      a: imageOf(face, first),
      b: imageOf(face, second),
      input,
      ...(caption === undefined ? {} : { caption }),
    })),
  );
}

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );
