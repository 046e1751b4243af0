import { spawn } from 'node:child_process';
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export interface Outcome {
  code: number | null;
  stdout: string;
  stderr: string;
}

const root = fileURLToPath(new URL('../..', import.meta.url));

/** Whether dist/ was built, by scripts/setup, after every change of its sources. */
function isBuilt(): boolean {
  const built = statSync(join(root, 'dist/.built'), { throwIfNoEntry: false });
  if (!built) return false;
  const sources = readdirSync(join(root, 'lib'), { recursive: true, encoding: 'utf8' }).map((name) =>
    join('lib', name),
  );
  return [...sources, 'tsconfig.json', 'tsconfig.build.json', 'package-lock.json'].every(
    (name) => statSync(join(root, name)).mtimeMs <= built.mtimeMs,
  );
}

/** Node's arguments for the command line: as built, which starts in a third of the time, or from its sources. */
export const command = isBuilt()
  ? [join(root, 'dist/cli/main.js')]
  : ['--import', 'tsx', join(root, 'lib/cli/main.ts')];

/** Runs the command line; `onOutput` is called when its first output is there, and may send a signal. */
export function refl(
  args: readonly string[],
  onOutput?: (kill: (signal: NodeJS.Signals) => void) => void,
): Promise<Outcome> {
  const child = spawn(process.execPath, [...command, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
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
