import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

export interface Outcome {
  code: number | null;
  stdout: string;
  stderr: string;
}

const main = fileURLToPath(new URL('../../lib/cli/main.ts', import.meta.url));

/** Runs the command line; `onOutput` is called when its first output is there, and may send a signal. */
export function refl(
  args: readonly string[],
  onOutput?: (kill: (signal: NodeJS.Signals) => void) => void,
): Promise<Outcome> {
  const child = spawn(process.execPath, ['--import', 'tsx', main, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  const outcome: Outcome = { code: null, stdout: '', stderr: '' };
  child.stdout.on('data', (data) => {
    outcome.stdout += data;
  });
  child.stdout.once('data', () => onOutput?.((signal) => child.kill(signal)));
  child.stderr.on('data', (data) => {
    outcome.stderr += data;
  });
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => resolve({ ...outcome, code }));
  });
}

/** The error messages of a run, one a line; fails on anything that looks like a stack trace. */
export function errorLines({ stderr }: Outcome): string[] {
  const lines = stderr.trim().split('\n').filter(Boolean);
  const odd = lines.find((line) => !line.startsWith('refl-native: '));
  if (odd !== undefined) throw new Error(`this line on stderr is no message: ${odd}`);
  return lines;
}
