// Training in a process of its own, which may be killed, and what it must leave.
import { spawn } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import * as assert from 'uvu/assert';
import { random } from '../support/random.ts';

/** When a process is killed: so many steps, told by lines, and milliseconds after it began. */
export interface Kill {
  readonly steps: number;
  readonly delay: number;
}

/**
 * Runs children/NAME.ts, which prints a line a step; resolves to whether it ended by itself, and fails where it failed.
 *
 * @param onStart is called with what kills it
 */
export function child(name: string, args: readonly string[], kill?: Kill, onStart?: (kill: () => void) => void) {
  const file = fileURLToPath(new URL(`children/${name}.ts`, import.meta.url));
  const child = spawn(process.execPath, ['--import', 'tsx', file, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  onStart?.(() => child.kill('SIGKILL'));
  let [seen, errors] = [0, ''];
  const killLater = (): void => void setTimeout(kill!.delay).then(() => child.kill('SIGKILL'));
  if (kill?.steps === 0) killLater();
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    const before = seen;
    seen += text.split('\n').length - 1;
    if (kill && before < kill.steps && seen >= kill.steps) killLater();
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    errors += text;
  });
  return new Promise<boolean>((resolve, reject) => {
    child.on('close', (code, signal) => {
      if (code === 0) resolve(true);
      else if (signal === 'SIGKILL') resolve(false);
      else reject(new Error(errors));
    });
  });
}

/** Kills a run so many times at random moments, every time before its end, then lets it end. */
export async function killOften(kills: number, run: (kill?: Kill) => Promise<boolean>): Promise<void> {
  const { int } = random(kills);
  for (let killed = 0; killed < kills; killed++) {
    // Every fifth time within its start, else some steps and milliseconds later: while a file is being written, too.
    const isEarly = killed % 5 === 4;
    const kill = isEarly ? { steps: 0, delay: int(0, 1500) } : { steps: int(1, 15), delay: int(0, 12) };
    assert.not.ok(await run(kill), `it ended after ${killed} kills`);
  }
  assert.ok(await run());
}

/** Steps that {@link killOften} cannot reach the end of. */
export const stepsFor = (kills: number): number => 20 + 20 * kills;

/** Holds a run's files against those of one that never stopped. */
export async function sameRun(out: string, reference: string): Promise<void> {
  const states = async (folder: string) => (await readdir(folder)).filter((name) => name.endsWith('.safetensors'));
  const names = await states(reference);
  assert.equal(await states(out), names);
  for (const name of names) {
    assert.ok((await readFile(join(out, name))).equals(await readFile(join(reference, name))), `${name} differs`);
  }
  assert.not.ok((await readdir(out)).some((name) => name.endsWith('.tmp') || name.includes('.lock')));
}
