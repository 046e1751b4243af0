import type { CommandModule } from 'yargs';
import { shareOf } from '../data/comparisons.ts';
import { measuresOf } from '../data/measures.ts';
import { ReflError } from '../errors.ts';
import { type SearchReport, searchPreference } from '../train/preference_search.ts';
import { savePreferenceModel } from '../train/preference_svm.ts';
import { comparisonOptions, interval, noteUnmeasured, pairsArgument, percent, readAll } from './comparisons.ts';
import { interrupted } from './interrupt.ts';
import { number } from './options.ts';
import { Progress } from './progress.ts';

interface Args {
  pairs: string;
  choices: string;
  metrics: string;
  out: string;
  costs: number[];
  gammas: number[];
  folds: number;
  holdout: number;
  seed: number;
  json: boolean;
}

const numbers = (describe: string, value: number[]) =>
  ({ describe, type: 'number', array: true, requiresArg: true, default: value }) as const;

export const trainSvmCommand: CommandModule<object, Args> = {
  command: 'svm <pairs>',
  describe: "train the classifier that stretches people's choices, on metrics of both pictures of a pair",
  builder: (yargs) =>
    yargs.positional('pairs', pairsArgument).options({
      ...comparisonOptions,
      out: { alias: 'o', requiresArg: true, describe: 'JSON file to write', type: 'string', demandOption: true },
      costs: numbers('costs of a violated margin to try', [0.1, 1, 10, 100]),
      gammas: numbers("factors of the kernel's exponent to try", [0.01, 0.03, 0.1, 0.3]),
      folds: number('of the cross-validation; each person lies in one', 5),
      holdout: number('part of the people to hold out and judge by', 0.1),
      seed: number('of who is held out and of the folds', 0),
      json: { describe: 'print the report as a JSON object', type: 'boolean', default: false },
    }),
  handler: train,
};

async function train({ out, json, ...options }: Args): Promise<void> {
  if (!Number.isSafeInteger(options.seed)) {
    throw new ReflError('ERR_OPTION', `seed must be a whole number, got ${options.seed}`);
  }
  const { comparisons, verdicts, measures } = await readAll(options);
  const voted = comparisons.flatMap((comparison) => {
    const verdict = verdicts.get(comparison.pair);
    const share = verdict && shareOf(verdict);
    return share === undefined ? [] : [{ comparison, share }];
  });
  const samples = voted.flatMap(({ comparison, share }) => {
    const values = measuresOf(measures, comparison);
    const { pair, person } = comparison;
    return values ? [{ pair, person, ...values, share }] : [];
  });
  noteUnmeasured(voted.length - samples.length, options.metrics, 'left out');
  let progress: Progress | undefined;
  const { svm, heldOut, report } = await searchPreference(measures.metrics, samples, options, {
    signal: interrupted,
    onTrained: (done, total) => {
      progress ??= new Progress(total, 'classifiers');
      progress.update(done);
    },
  });
  progress?.clear();
  await savePreferenceModel(out, { svm, metrics: measures.metrics, heldOut, report });
  console.log(json ? JSON.stringify({ output: out, ...report }) : `${describe(report)}\n${out}`);
}

function describe(report: SearchReport): string {
  const { people, pairs, decided, cost, gamma, vectors, validation, heldOut, metrics } = report;
  const width = Math.max(...metrics.map(({ name }) => name.length));
  return [
    `${pairs} pairs of ${people} people, ${decided} of them decided`,
    `cost ${cost}, gamma ${gamma}: ${vectors} support vectors`,
    `right in ${validation.folds} folds: ${interval(validation)}, cross entropy ${validation.logLoss.toFixed(4)}`,
    `right on ${heldOut.people} people held out: ${interval(heldOut)}, cross entropy ${heldOut.logLoss.toFixed(4)}`,
    'what decides, by the accuracy lost without it:',
    ...metrics.map(
      ({ name, importance, alone, better }) =>
        `  ${name.padEnd(width)}  ${percent(importance).padStart(7)}   alone, ${better} is better: ${interval(alone)}`,
    ),
  ].join('\n');
}
