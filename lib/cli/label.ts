import type { CommandModule } from 'yargs';
import { labelPairs, writeLabels } from '../train/labels.ts';
import { loadPreferenceModel } from '../train/preference_svm.ts';
import { comparisonOptions, noteUnmeasured, pairsArgument, readAll } from './comparisons.ts';

interface Args {
  pairs: string;
  choices: string;
  metrics: string;
  svm: string;
  out: string;
  hard: boolean;
  json: boolean;
}

export const labelCommand: CommandModule<object, Args> = {
  command: 'label <pairs>',
  describe: "label all pairs: people's votes where there are any, a classifier's elsewhere",
  builder: (yargs) =>
    yargs.positional('pairs', pairsArgument).options({
      ...comparisonOptions,
      svm: { requiresArg: true, describe: 'what train svm wrote', type: 'string', demandOption: true },
      out: { alias: 'o', requiresArg: true, describe: 'file to write: JSON lines', type: 'string', demandOption: true },
      hard: { describe: 'label with 0 or 1 instead of a probability', type: 'boolean', default: false },
      json: { describe: 'print the figures as a JSON object', type: 'boolean', default: false },
    }),
  handler: label,
};

async function label({ svm, out, hard, json, ...files }: Args): Promise<void> {
  const model = await loadPreferenceModel(svm);
  const { comparisons, verdicts, measures } = await readAll(files);
  const labels = labelPairs(comparisons, verdicts, measures, model, { hard });
  noteUnmeasured(comparisons.length - labels.length, files.metrics, 'left out');
  await writeLabels(out, labels);
  const people = labels.filter(({ source }) => source === 'people').length;
  const heldOut = labels.filter(({ split }) => split === 'heldout').length;
  const figures = { pairs: labels.length, people, svm: labels.length - people, heldOut };
  if (json) return console.log(JSON.stringify({ output: out, ...figures }));
  process.stderr.write(
    `refl-native: ${labels.length} pairs: ${people} by people, ${figures.svm} by the classifier; ${heldOut} of people held out\n`,
  );
  console.log(out);
}
