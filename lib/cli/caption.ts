import { basename } from 'node:path';
import type { CommandModule } from 'yargs';
import { Captioner, type CaptionOptions, defaultCaption, defaultPrompt, uncaptioned } from '../data/captions.ts';
import { ReflError } from '../errors.ts';
import { ClipTokenizer } from '../text/tokenizer.ts';
import { UsageError } from './failure.ts';
import { listInputs } from './inputs.ts';
import { interrupted } from './interrupt.ts';
import { fileOptions, inputs, text } from './options.ts';
import { Report } from './report.ts';

interface Args {
  inputs: string[];
  out: string;
  endpoint?: string;
  model?: string;
  prompt: string;
  'key-variable'?: string;
  concurrency: number;
  timeout: number;
  retries: number;
  caption?: string;
  tokenizer?: string;
  'dry-run': boolean;
  json: boolean;
}

const count = (describe: string, value: number) =>
  ({ describe, type: 'number', requiresArg: true, default: value }) as const;

export const captionCommand: CommandModule<object, Args> = {
  command: 'caption <inputs..>',
  describe: 'describe pictures by a vision model behind an OpenAI-compatible endpoint',
  builder: (yargs) =>
    yargs.positional('inputs', inputs).options({
      out: {
        ...text('file of captions to write or go on with: JSON lines of image (relative to it), caption, source'),
        alias: 'o',
        demandOption: true,
      },
      endpoint: {
        ...text('base address, such as http://127.0.0.1:8080/v1; without one all captions are --caption'),
        implies: 'model',
      },
      model: { ...text('name of the model there'), implies: 'endpoint' },
      prompt: { ...text('what it is asked'), default: defaultPrompt },
      'key-variable': text('the environment variable with the key; none is sent without it'),
      concurrency: count('pictures asked for at once', 4),
      timeout: count('seconds for one answer', 120),
      retries: count('more attempts, with growing waits, where it is overloaded, fails or answers nonsense', 4),
      caption: {
        ...text(`what all pictures are said to show without an endpoint ["${defaultCaption}"]`),
        conflicts: 'endpoint',
      },
      tokenizer: text("CLIP's tokenizer, as for score, to count tokens by; estimated without"),
      'dry-run': { describe: 'say what would be done; send and write nothing', type: 'boolean', default: false },
      json: fileOptions.json,
    }),
  handler: caption,
};

async function caption({ inputs: paths, out, json, ...args }: Args): Promise<void> {
  const concurrency = atLeast('concurrency', args.concurrency, 1);
  const asked = { out, concurrency, caption: args.caption, endpoint: await endpointOf(args) };
  const tokenizer = args.tokenizer === undefined ? undefined : await ClipTokenizer.load(args.tokenizer);
  const { files, failures } = await listInputs(paths);
  const report = new Report(files.length, json);
  for (const { input, error } of failures) report.fail(input, error);
  const options = { ...asked, tokenizer };
  if (args['dry-run']) return rehearse(files, options, args.endpoint, json);

  await using captioner = await Captioner.open(options);
  if (captioner.cut) report.note(out, 'the last line was cut off, and is removed');
  let done = files.filter((file) => captioner.has(file)).length;
  await captioner.run(files, {
    signal: interrupted,
    onCaption: (file, { image: _, ...record }) => {
      if (record.full !== undefined)
        report.note(file, "the caption was longer than CLIP's 77 tokens, and is shortened");
      report.result(file, `${file}  ${record.caption}`, record);
      report.progress.update(++done, basename(file));
    },
    onFailure: (file, error) => report.fail(file, error),
  });
  report.progress.clear();
}

async function rehearse(files: readonly string[], options: CaptionOptions, url: string | undefined, json: boolean) {
  const left = (await uncaptioned(files, options)).length;
  const { endpoint, concurrency, caption: given = defaultCaption } = options;
  const plan = endpoint
    ? { endpoint: url, model: endpoint.model, prompt: endpoint.prompt, concurrency }
    : { caption: given };
  if (json) return console.log(JSON.stringify({ pictures: files.length, left, ...plan }));
  const lines = [
    `${files.length} pictures, ${files.length - left} of them described in ${options.out} already`,
    endpoint
      ? `${left} to send to ${endpoint.model} at ${url}, ${concurrency} at once, with the prompt: ${endpoint.prompt}`
      : `${left} to be described, all as: ${given}`,
  ];
  console.log(lines.join('\n'));
}

async function endpointOf({ endpoint, model, prompt, ...args }: Omit<Args, 'inputs' | 'out' | 'json'>) {
  if (endpoint === undefined || model === undefined) return undefined;
  const variable = args['key-variable'];
  const key = variable === undefined ? undefined : process.env[variable];
  if (variable !== undefined && !key) throw new UsageError(`the environment variable ${variable} holds no key`);
  const timeout = atLeast('timeout', args.timeout, 1e-3, false);
  const retries = atLeast('retries', args.retries, 0);
  // The client takes a tenth of a second to load, which other commands need not wait for.
  const { CaptionEndpoint } = await import('../data/caption_endpoint.ts');
  return new CaptionEndpoint({ endpoint, model, prompt, key, timeout, retries });
}

function atLeast(name: string, value: number, least: number, whole = true): number {
  if (value >= least && (whole ? Number.isSafeInteger(value) : value < 1e6)) return value;
  throw new ReflError(
    'ERR_OPTION',
    `${name} must be ${whole ? 'a whole number of ' : ''}at least ${least}, got ${value}`,
  );
}
