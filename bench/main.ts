// Speed beside oneDNN and PyTorch: npm run bench [-- NAME... --json FILE --threads N]
//
// NAME is a family (conv, linear, attention, memory), part of an operator's name, a model (face-256, sd21) or opening;
// everything by default. refl-step alone says what a step of training by rewards takes (bench/refl_step.ts). Prints one JSON object a measurement (into FILE, when given), then all of them as Markdown;
// progress goes to stderr. oneDNN and PyTorch are installed from Debian's packages when missing. Use a quiet machine.
import { appendFileSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import { modelBenches } from '../lib/bench/models.ts';
import { type OpBench, opBenches } from '../lib/bench/ops.ts';
import { openDevice } from '../lib/runtime/index.ts';
import { measureNetwork, measureOpening } from './networks.ts';
import { measureOp } from './ops.ts';
import { limitOf, openOneDnn, openPeak, openTorch, type Peer } from './peers.ts';
import { type MachineResult, markdown, type Result } from './table.ts';

const { values, positionals: names } = parseArgs({
  allowPositionals: true,
  options: { json: { type: 'string' }, threads: { type: 'string' } },
});
const threads = Number(values.threads ?? availableParallelism());
const wanted = (name: string, family?: string): boolean =>
  !names.length || names.some((text) => text === family || name.includes(text));

if (names.length === 1 && names[0] === 'refl-step') {
  const { printReflStep } = await import('./refl_step.ts');
  await printReflStep(threads);
  process.exit();
}

const ops = opBenches.filter(({ name, family }) => wanted(name, family));
const models = modelBenches.filter(({ name, onRequest }) => wanted(name) && (names.length || !onRequest));
const opening = wanted('opening');
if (!ops.length && !models.length && !opening) throw new Error(`nothing to measure is named ${names.join(' or ')}`);

const results: Result[] = [];
if (values.json) writeFileSync(values.json, '');
function report(result: Result): void {
  results.push(result);
  const line = JSON.stringify(result);
  if (values.json) appendFileSync(values.json, `${line}\n`);
  else console.log(line);
}

const start = performance.now();
const say = (what: string): void => console.error(`${((performance.now() - start) / 60_000).toFixed(1)} min  ${what}`);
const peers = new Map<string, Peer>();
/** The peer of an operator, started when first needed. */
function peerOf({ family }: OpBench): Peer {
  const [name, open] =
    family === 'conv' || family === 'linear' ? (['oneDNN', openOneDnn] as const) : (['PyTorch', openTorch] as const);
  const peer = peers.get(name) ?? open(threads);
  peers.set(name, peer);
  return peer;
}

const load = loadavg()[0];
const peak = openPeak(threads);
report(await machine());
{
  using device = await openDevice('cpu', { threads });
  for (const [i, op] of ops.entries()) {
    say(`operator ${i + 1} of ${ops.length}: ${op.name}`);
    report(await measureOp(device, op, peak, peerOf(op)));
  }
}
for (const peer of peers.values()) await peer.close();
for (const { name } of models) {
  for (const result of await measureNetwork(name, threads, peak, say)) report(result);
}
if (opening) {
  say('opening weights');
  report(await measureOpening(threads));
}
await peak.close();
console.log(`\n${markdown(results)}`);

async function machine(): Promise<MachineResult> {
  return {
    bench: 'machine',
    processor: cpus()[0].model.trim(),
    node: process.version,
    threads,
    peakOneThread: await limitOf(peak, 'fma', 1),
    peak: await limitOf(peak, 'fma', threads),
    copy: await limitOf(peak, 'copy', threads),
    load,
  };
}
