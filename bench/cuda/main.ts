// Kernels on a GPU, beside PyTorch where python3 has it: node --import tsx bench/cuda/main.ts PROGRAM [NAME... --dtype bf16
// --json FILE --runs N]
//
// PROGRAM is bench/cuda/operators.cc, built; a dtype is f32, tf32, bf16 or f16. NAME is a family (conv, linear, attention,
// memory) or part of an operator's name; everything by default. Prints one JSON object a measurement (into FILE, when
// given), then all as Markdown; progress goes to stderr. All figures of a row come from the same minute on the same card.
import { appendFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Peer, Refused } from '../peers.ts';
import { requestOf } from './request.ts';
import { type Shape, shapes } from './shapes.ts';
import { type Measured, markdown } from './table.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    dtype: { type: 'string', default: 'bf16' },
    json: { type: 'string' },
    runs: { type: 'string', default: '20' },
  },
});
const [program, ...names] = positionals;
if (!program) throw new Error('name the program that bench/cuda/operators.cc was built into');
const { dtype, runs } = values;
const wanted = shapes.filter(
  ({ name, family }) => !names.length || names.some((text) => text === family || name.includes(text)),
);
if (!wanted.length) throw new Error(`nothing to measure is named ${names.join(' or ')}`);

const results: Measured[] = [];
if (values.json) writeFileSync(values.json, '');
function report(result: Measured): void {
  results.push(result);
  const line = JSON.stringify(result);
  if (values.json) appendFileSync(values.json, `${line}\n`);
  else console.log(line);
}

const ours = new Peer('bench/cuda', program, [], process.env);
const torch = await openTorch();
const device = await ours.ask<{ name: string; sm: number }>('device');
report({
  bench: 'device',
  ...device,
  date: new Date().toISOString(),
  torch: torch?.version,
  // Bytes read and written by a copy that no cache holds.
  copy: (2 * 2 ** 30) / (await ours.ask<{ seconds: number }>('copy', 2 ** 30, runs)).seconds / 1e9,
});
for (const [i, shape] of wanted.entries()) {
  console.error(`${i + 1} of ${wanted.length}: ${shape.name}`);
  report(await measure(shape));
}
await ours.close();
await torch?.peer.close();
console.log(`\n${markdown(results)}`);

async function measure(shape: Shape): Promise<Measured> {
  const { words, bytes } = requestOf(shape, dtype);
  const { name, family, op, flops } = shape;
  const own = await attempt(ours, 'operator', op, runs, ...words);
  const theirs = torch ? await attempt(torch.peer, ...shape.peer.split(' '), dtype, runs) : {};
  return {
    bench: 'kernel',
    ...{ name, family, op, dtype, flops, bytes },
    ours: own.seconds as number | undefined,
    peers: theirs.seconds as Record<string, number> | undefined,
    problems: [own.error, theirs.error].filter((it) => it !== undefined),
  };
}

/** The answer, or the complaint: one operator that fails does not stop the others. */
async function attempt(peer: Peer, ...words: (string | number)[]): Promise<{ seconds?: unknown; error?: string }> {
  try {
    return await peer.ask(...words);
  } catch (error) {
    if (error instanceof Refused) return { error: error.message };
    throw error;
  }
}

/** PyTorch with a GPU, where python3 has it. */
async function openTorch(): Promise<{ peer: Peer; version: string } | undefined> {
  const peer = new Peer('PyTorch', 'python3', [fileURLToPath(new URL('pytorch.py', import.meta.url))], process.env);
  try {
    return { peer, version: (await peer.ask<{ torch: string }>('device')).torch };
  } catch {
    console.error('python3 has no PyTorch that sees a GPU: nothing to compare with');
    return undefined;
  }
}
