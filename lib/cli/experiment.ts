import { join } from 'node:path';
import type { CommandModule } from 'yargs';
import { ablation } from '../experiments/ablation.ts';
import type { Look } from '../experiments/arm.ts';
import { reflDemo } from '../experiments/demo.ts';
import { hacking } from '../experiments/hacking.ts';
import { interval } from '../experiments/interval.ts';
import { reflMaterial } from '../experiments/material.ts';
import { type Experiment, type ExperimentReport, runExperiment } from '../experiments/report.ts';
import { demoArm, hackingArm } from '../experiments/settings.ts';
import { photographs } from './demo.ts';
import { interrupted } from './interrupt.ts';
import { deviceOptions } from './options.ts';
import { StageProgress } from './progress.ts';

interface Args {
  out: string;
  lpips?: string[];
  json: boolean;
  device: string;
  threads?: number;
}

/** A command that runs an experiment. All of them share what they can in one folder. */
const commandOf = (command: string, describe: string, experiment: Experiment): CommandModule<object, Args> => ({
  command,
  describe,
  builder: (yargs) =>
    yargs.options({
      out: {
        alias: 'o',
        requiresArg: true,
        describe: 'folder for everything, which the demonstration and the experiments may share',
        type: 'string',
        default: 'out/refl',
      },
      lpips: {
        describe: "LPIPS's files, VGG16 and the linear layers, to train and to measure by",
        type: 'string',
        array: true,
      },
      ...deviceOptions,
      json: { describe: 'print the report as a JSON object', type: 'boolean', default: false },
    }),
  handler: (args) => run(experiment, args),
});

export const demoReflCommand = commandOf(
  'refl',
  'train the restorer that ships by the reward model that ships, with a report',
  reflDemo(demoArm),
);
export const hackingCommand = commandOf(
  'hacking',
  'train by a judge that stays as it is until the watch is alarmed, then by one that learns',
  hacking(hackingArm),
);
export const ablationCommand = commandOf(
  'ablation',
  'leave out the reward, the image losses, the regulariser or the learning of the judge',
  ablation(demoArm),
);
export const intervalCommand = commandOf(
  'interval',
  'let the judge learn after every update, or after 5, 10, 20, or never',
  interval(demoArm),
);

async function run(experiment: Experiment, { out, lpips, json, device, threads }: Args): Promise<void> {
  const progress = new StageProgress();
  const report = await runExperiment(
    experiment,
    reflMaterial,
    { out, photographs, device, threads, lpips, signal: interrupted },
    {
      onProgress: (stage, done, total) => progress.update(stage, done, total),
      onLook: (_, look) => progress.log(lookLine(look)),
    },
  );
  progress.clear();
  console.log(json ? JSON.stringify(report) : describe(report, out));
}

function lookLine({ step, observation, alarms }: Look): string {
  const { reward, independent, distances } = observation;
  const figures = { reward, independent, perceptual: distances.perceptual, identity: distances.identity };
  const told = Object.entries(figures).map(([name, value]) => `${name} ${value!.toFixed(4)}`);
  const raised = alarms.map(({ detector }) => `WATCH ${detector}`);
  return [`  update ${step}`, ...told, ...raised].join('  ');
}

function describe({ name, title, findings, people }: ExperimentReport, out: string): string {
  const width = Math.max(...findings.map(({ what }) => what.length));
  return [
    `${title}; looked at ${people.pictures} degraded pictures of ${people.held.length} people held out`,
    ...findings.map(
      ({ what, found, reached }) => `  ${what.padEnd(width)}  ${reached ? 'seen' : 'not seen'}: ${found}`,
    ),
    join(out, `${name}.html`),
  ].join('\n');
}
