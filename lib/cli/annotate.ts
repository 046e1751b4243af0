import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import type { CommandModule } from 'yargs';
import { Annotations } from '../data/annotations.ts';
import { checkFiles, readComparisons } from '../data/comparisons.ts';
import { agreementOf } from '../eval/kappa.ts';
import { heard, pairsArgument } from './comparisons.ts';
import { UsageError } from './failure.ts';
import { interrupted } from './interrupt.ts';

interface Args {
  pairs: string;
  out: string;
  host: string;
  port: number;
  token?: string;
  seed: number;
}

export const annotateCommand: CommandModule<object, Args> = {
  command: 'annotate <pairs>',
  describe: 'ask people which picture of a pair is better, on a page in the browser',
  builder: (yargs) =>
    yargs.positional('pairs', pairsArgument).options({
      out: {
        alias: 'o',
        requiresArg: true,
        describe: 'file of choices to write or go on with, as train svm reads it',
        type: 'string',
        demandOption: true,
      },
      host: { requiresArg: true, describe: 'address to listen at', type: 'string', default: '127.0.0.1' },
      port: { requiresArg: true, describe: 'port to listen at; 0 takes a free one', type: 'number', default: 8471 },
      token: {
        requiresArg: true,
        describe: 'what a browser must know to get in [drawn anew where --host is not this machine alone]',
        type: 'string',
      },
      seed: {
        requiresArg: true,
        describe: "of everybody's order of pairs, and of which picture lies left",
        type: 'number',
        default: 0,
      },
    }),
  handler: annotate,
};

const shortestToken = 12;

async function annotate({ pairs, out, host, port, seed, ...options }: Args): Promise<void> {
  const here = /^(localhost|127\.\d+\.\d+\.\d+|::1)$/.test(host);
  const token = options.token ?? (here ? undefined : randomBytes(18).toString('base64url'));
  if (token !== undefined && !(/^[\w.~-]+$/.test(token) && token.length >= shortestToken))
    throw new UsageError(`--token needs ${shortestToken} letters and digits or more`);
  const comparisons = heard(await readComparisons(pairs));
  await checkFiles(
    pairs,
    comparisons.flatMap(({ input }) => input ?? []),
  );
  // The server takes a while to load, which other commands need not wait for.
  const [{ annotateApp }, { Listening }] = await Promise.all([
    import('../server/annotate.ts'),
    import('../server/listen.ts'),
  ]);
  await using annotations = await Annotations.open(comparisons, { out, seed });
  heard({ value: annotations, notes: annotations.notes });
  await using server = await Listening.start(annotateApp(annotations, token), host, port);
  const name = here ? (host === '::1' ? '[::1]' : host) : hostname();
  console.log(`http://${name}:${server.port}/${token === undefined ? '' : `?token=${token}`}`);
  const safety = here ? '' : ' The connection is not encrypted: use it on networks that you trust.';
  process.stderr.write(`refl-native: open this address; choices go to ${out}; Ctrl-C ends.${safety}\n`);
  if (!interrupted.aborted) await new Promise((done) => interrupted.addEventListener('abort', done));
  process.stderr.write(summary(annotations));
}

/** Who judged how much, and how people agree. */
function summary(annotations: Annotations): string {
  const people = annotations.standings().map(({ annotator, pairs, done, skipped, decided, leftChosen }) => {
    const side = decided ? `, ${leftChosen} of ${decided} preferred lay on the left` : '';
    return `${annotator}: ${done} of ${pairs} pairs, ${skipped} skipped${side}`;
  });
  const { couples, all } = agreementOf(annotations.verdicts());
  const figures = (pairs: number, share: number, name: string, kappa: number): string =>
    `${(100 * share).toFixed(0)}% the same on ${pairs} pairs${Number.isNaN(kappa) ? '' : `, ${name} kappa ${kappa.toFixed(2)}`}`;
  const two = couples
    .filter(({ pairs }) => pairs)
    .map(
      ({ annotators, pairs, share, kappa }) => `${annotators.join(', ')}: ${figures(pairs, share, "Cohen's", kappa)}`,
    );
  const everybody = all?.pairs ? [`all: ${figures(all.pairs, all.share, "Fleiss'", all.kappa)}`] : [];
  return [...people, ...two, ...everybody].map((line) => `refl-native: ${line}\n`).join('');
}
