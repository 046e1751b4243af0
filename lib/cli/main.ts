#!/usr/bin/env node
import { readFileSync } from 'node:fs';
import yargs from 'yargs';
import { hideBin } from 'yargs/helpers';
import { defaultRanges } from '../data/degrade.ts';
import { annotateCommand } from './annotate.ts';
import { benchCommand } from './bench.ts';
import { candidatesCommand } from './candidates.ts';
import { captionCommand } from './caption.ts';
import { convertCommand } from './convert.ts';
import { degradeCommand } from './degrade.ts';
import { demoFrmCommand } from './demo.ts';
import { doctorCommand } from './doctor.ts';
import { evalFrmCommand } from './eval_frm.ts';
import { ablationCommand, demoReflCommand, hackingCommand, intervalCommand } from './experiment.ts';
import { facesCommand } from './faces.ts';
import { exitCodeOf, oneLine, UsageError } from './failure.ts';
import { inspectCommand } from './inspect.ts';
import { catchSignals, interruptCode } from './interrupt.ts';
import { labelCommand } from './label.ts';
import { metricsCommand } from './metrics.ts';
import { modelsCommand } from './models.ts';
import { restoreCommand } from './restore.ts';
import { scoreCommand } from './score.ts';
import { trainBaseCommand } from './train.ts';
import { trainFrmCommand } from './train_frm.ts';
import { trainReflCommand } from './train_refl.ts';
import { trainSvmCommand } from './train_svm.ts';
import { truncationCommand } from './truncation.ts';

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
  version: string;
};

function readConfig(path: string): object {
  try {
    const config: unknown = JSON.parse(readFileSync(path, 'utf8'));
    if (typeof config === 'object' && config !== null && !Array.isArray(config)) return config;
  } catch (cause) {
    throw new UsageError(`${path}: the configuration cannot be read: ${(cause as Error).message}`, { cause });
  }
  throw new UsageError(`${path}: the configuration must be a JSON object of options`);
}

/** Options that hold several values; yargs makes a list of any other one that is given twice. */
const lists = [
  '_',
  'inputs',
  'sources',
  'heldout',
  'candidates',
  'models',
  'costs',
  'gammas',
  'only',
  'lpips',
  ...Object.keys(defaultRanges),
];

function single(args: Record<string, unknown>): true {
  const twice = Object.keys(args).find((key) => key.length > 1 && Array.isArray(args[key]) && !lists.includes(key));
  if (twice) throw new UsageError(`--${twice} takes one value`);
  return true;
}

const missing = 'a command is missing';

const cli = yargs(hideBin(process.argv))
  .scriptName('refl-native')
  .usage('$0 <command>\n\nBlind face restoration.')
  .command(restoreCommand)
  .command(scoreCommand)
  .command(metricsCommand)
  .command('data', 'work on data sets', (data) =>
    data
      .command(facesCommand)
      .command(degradeCommand)
      .command(candidatesCommand)
      .command(captionCommand)
      .command(annotateCommand)
      .demandCommand(1, missing),
  )
  .command('train', 'train models', (train) =>
    train
      .command(trainBaseCommand)
      .command(trainSvmCommand)
      .command(trainFrmCommand)
      .command(trainReflCommand)
      .demandCommand(1, missing),
  )
  .command(labelCommand)
  .command('eval', 'judge models', (judge) => judge.command(evalFrmCommand).demandCommand(1, missing))
  .command('demo', 'make something from nothing but this package', (demo) =>
    demo.command(demoFrmCommand).command(demoReflCommand).demandCommand(1, missing),
  )
  .command('experiment', 'see what training by rewards does, at a small size', (experiment) =>
    experiment
      .command(hackingCommand)
      .command(ablationCommand)
      .command(intervalCommand)
      .command(truncationCommand)
      .demandCommand(1, missing),
  )
  .command(modelsCommand)
  .command(inspectCommand)
  .command(convertCommand)
  .command(benchCommand)
  .command(doctorCommand)
  .config('config', 'a JSON file of options; flags override it', readConfig)
  .check(single)
  .demandCommand(1, missing)
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
