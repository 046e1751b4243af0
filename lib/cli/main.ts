#!/usr/bin/env node
import { readFileSync } from 'node:fs';
import yargs from 'yargs';
import { hideBin } from 'yargs/helpers';
import { doctorCommand } from './doctor.ts';
import { exitCodeOf, oneLine, UsageError } from './failure.ts';
import { catchSignals, interruptCode } from './interrupt.ts';
import { restoreCommand } from './restore.ts';

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string };

function readConfig(path: string): object {
  try {
    const config: unknown = JSON.parse(readFileSync(path, 'utf8'));
    if (typeof config === 'object' && config !== null && !Array.isArray(config)) return config;
  } catch (cause) {
    throw new UsageError(`${path}: the configuration cannot be read: ${(cause as Error).message}`, { cause });
  }
  throw new UsageError(`${path}: the configuration must be a JSON object of options`);
}

const cli = yargs(hideBin(process.argv))
  .scriptName('refl-native')
  .usage('$0 <command>\n\nBlind face restoration.')
  .command(restoreCommand)
  .command(doctorCommand)
  .config('config', 'a JSON file of options; flags override it', readConfig)
  .parserConfiguration({ 'duplicate-arguments-array': false })
  .demandCommand(1, 'a command is missing')
  .strict()
  .recommendCommands()
  .version(version)
  .exitProcess(false)
  .fail((message, error) => {
    // Without a message it is a command that failed, not the command line.
    throw message ? new UsageError(message) : error;
  })
  .epilogue('Exit codes: 0 done, 1 something failed, 2 wrong usage, 130 interrupted.');

// A reader that has seen enough (`| head`) is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit();
  throw error;
});
catchSignals();
try {
  await cli.parseAsync();
} catch (error) {
  const hint = error instanceof UsageError ? ' (see refl-native --help)' : '';
  if (interruptCode() === undefined) console.error(`refl-native: ${oneLine(error)}${hint}`);
  process.exitCode = exitCodeOf(error);
}
process.exitCode = interruptCode() ?? process.exitCode;
