import { join } from 'node:path';
import { writeAtomic } from '../image/files.ts';
import { openDevice } from '../runtime/index.ts';
import { type Arm, type ArmResult, type Look, runArm } from './arm.ts';
import { type Material, type MaterialSettings, prepareMaterial, type Workplace } from './material.ts';
import { experimentPage } from './page.ts';

/** What an experiment was to show, and what was seen. */
export interface Finding {
  readonly what: string;
  readonly found: string;
  readonly reached: boolean;
}

/** Runs arms and says what to look for in what they come to. */
export interface Experiment {
  /** The name of its reports' files. */
  readonly name: string;
  readonly title: string;
  /** What it asks, in a sentence or two. */
  readonly asks: string;
  /** Runs its arms, one after another. */
  run(arm: (arm: Arm) => Promise<ArmResult>): Promise<ArmResult[]>;
  findings(arms: readonly ArmResult[]): Finding[];
}

export interface ExperimentReport extends Pick<Experiment, 'name' | 'title' | 'asks'> {
  readonly findings: readonly Finding[];
  readonly arms: readonly ArmResult[];
  readonly people: { readonly held: readonly string[]; readonly pictures: number };
  /** Of this go; what was there already took no time. */
  readonly seconds: number;
}

export interface ExperimentEvents {
  readonly onProgress?: (stage: string, done: number, total: number) => void;
  readonly onLook?: (arm: string, look: Look) => void;
}

/**
 * Makes the material, runs the arms and writes NAME.html and NAME.json into `out`, where several experiments may share material
 * and arms. Started again, it goes on. Throws what its parts throw.
 */
export async function runExperiment(
  experiment: Experiment,
  settings: MaterialSettings,
  workplace: Workplace,
  { onProgress = () => {}, onLook }: ExperimentEvents = {},
): Promise<ExperimentReport> {
  const { out, device: kind, threads, signal } = workplace;
  const started = performance.now();
  const material = await prepareMaterial(settings, workplace, { onProgress });
  using device = await openDevice(kind, { threads });
  const arms = await experiment.run((arm) => {
    onProgress(arm.says, 0, 1);
    return runArm(device, material, arm, join(out, 'arms'), {
      ...{ signal, onStep: (done: number, steps: number) => onProgress(arm.says, done, steps) },
      onLook: (look) => onLook?.(arm.says, look),
    });
  });
  const { name, title, asks } = experiment;
  const report: ExperimentReport = {
    ...{ name, title, asks, findings: experiment.findings(arms), arms, people: peopleOf(material) },
    seconds: (performance.now() - started) / 1000,
  };
  await writeAtomic(join(out, `${name}.json`), Buffer.from(`${JSON.stringify(report, null, 1)}\n`));
  await writeAtomic(join(out, `${name}.html`), Buffer.from(await experimentPage(report, material)));
  return report;
}

const peopleOf = ({ held }: Material): ExperimentReport['people'] => ({
  held: [...new Set(held.map(({ person }) => person))].sort(),
  pictures: held.length,
});
