import { parse } from 'node:path';
import type { CommandModule } from 'yargs';
import { readChoices } from '../data/comparisons.ts';
import { type AgreementReport, compareWithPeople, type Judge } from '../eval/agreement.ts';
import { judgeByReward } from '../eval/reward_judge.ts';
import { writeAtomic } from '../image/files.ts';
import { type Preprocessing, preprocessings } from '../reward/pictures.ts';
import { readLabels } from '../train/labels.ts';
import { comparisonOptions, heard, interval, percent } from './comparisons.ts';
import { UsageError } from './failure.ts';
import { interrupted } from './interrupt.ts';
import { deviceOptions } from './options.ts';
import { Progress } from './progress.ts';

interface Args {
  labels: string;
  choices: string;
  models: string[];
  tokenizer: string;
  caption?: string;
  preprocessing: Preprocessing;
  batch: number;
  html?: string;
  json: boolean;
  device: string;
  threads?: number;
}

export const evalFrmCommand: CommandModule<object, Args> = {
  command: 'frm <labels>',
  describe: "compare reward models with people's choices about held-out people",
  builder: (yargs) =>
    yargs.positional('labels', { describe: 'what label wrote', type: 'string', demandOption: true }).options({
      choices: comparisonOptions.choices,
      models: {
        describe: '[NAME=]FILE: weights as score takes them, several beside one another',
        type: 'string',
        array: true,
        requiresArg: true,
        demandOption: true,
      },
      tokenizer: {
        requiresArg: true,
        describe: "CLIP's tokenizer.json, its list of merges, or a folder with one of them",
        type: 'string',
        demandOption: true,
      },
      caption: { requiresArg: true, describe: 'of pairs that have none', type: 'string' },
      preprocessing: {
        requiresArg: true,
        describe: 'how pictures are brought to size, as score has it',
        choices: Object.keys(preprocessings) as Preprocessing[],
        default: 'hps' as Preprocessing,
      },
      batch: { requiresArg: true, describe: 'pictures worked on at once', type: 'number', default: 1 },
      html: {
        requiresArg: true,
        describe: 'page to write: charts, and pairs where people and the svm differ',
        type: 'string',
      },
      ...deviceOptions,
      json: { describe: 'print the report as a JSON object', type: 'boolean', default: false },
    }),
  handler: evaluate,
};

async function evaluate({ labels: path, choices, models, html, json, ...options }: Args): Promise<void> {
  const named = models.map((text) => {
    const [, given, weights] = /^(?:([^=/]+)=)?(.+)$/.exec(text) ?? [];
    return { name: given ?? parse(weights).name, weights };
  });
  const twice = named.find(({ name }, i) => name === 'svm' || named.findIndex((other) => other.name === name) < i);
  if (twice) throw new UsageError(`two judges are named ${twice.name}: name one, as in other=${twice.weights}`);
  const labels = heard(await readLabels(path));
  const verdicts = heard(await readChoices(choices, labels));
  const held = labels.filter(({ split, source }) => split === 'heldout' && source === 'people');
  const judges: Judge[] = [];
  const progress = new Progress(named.length, 'models');
  for (const [i, model] of named.entries()) {
    const onProgress = (fraction: number): void => progress.update(i + fraction, model.name);
    judges.push(await judgeByReward(held, { ...options, ...model, signal: interrupted, onProgress }));
  }
  progress.clear();
  const report = compareWithPeople(labels, verdicts, judges);
  if (html !== undefined) {
    // What draws charts takes longer to load than all else.
    const { agreementPage } = await import('../eval/agreement_page.ts');
    await writeAtomic(html, Buffer.from(await agreementPage(report)));
  }
  console.log(json ? JSON.stringify(report) : describe(report));
}

/** Disputed pairs that are listed. */
const mostListed = 10;

function describe({ pairs, decided, people, first, among, judges, disputed }: AgreementReport): string {
  const width = Math.max(...judges.map(({ name }) => name.length));
  const row = (name: string, text: string): string => `  ${name.padEnd(width)}  ${text}`;
  const annotators = judges[0].annotators.map(({ annotator }) => annotator);
  return [
    `${pairs} pairs of ${people} held-out people, ${decided} of them decided`,
    `A was chosen in ${interval(first)}; two annotators of a pair chose alike: ${interval(among)}`,
    'as people decided:',
    ...judges.map(({ name, all }) => row(name, interval(all))),
    'from the closest quarter, by the svm, to the clearest:',
    ...judges.map(({ name, quarters }) => row(name, quarters.map(({ share }) => percent(share)).join('  '))),
    ...annotators.flatMap((annotator, k) => [
      `as ${annotator} chose:`,
      ...judges.map(({ name, annotators: own }) => row(name, interval(own[k].share))),
    ]),
    `with people, where they and the svm differ (${disputed.length} pairs):`,
    ...judges.slice(1).map((judge) => row(judge.name, interval(judge.disputed))),
    ...disputed.slice(0, mostListed).map(({ pair, a, b, share, margin }) => {
      return `  ${pair}  people ${percent(share)} for A, svm ${margin.toFixed(2)}  ${a}  ${b}`;
    }),
    ...(disputed.length > mostListed ? [`  and ${disputed.length - mostListed} more: see --json`] : []),
  ].join('\n');
}
