import { grad } from '../graph/grad.ts';
import { input, type Node, type Tensor } from '../graph/tensor.ts';
import type { Module } from '../nn/module.ts';
import { judgeGraph } from '../train/refl/judge.ts';
import { objective } from '../train/refl/objective.ts';
import { type Planned, type PlanOptions, withPlanned } from '../train/refl/plan.ts';
import { type Work, workOf } from './work.ts';

/** A part of a training step, for one image. */
export interface StepPart extends Work {
  readonly name: string;
}

const less = (a: Work, b: Work): Work => ({ flops: a.flops - b.flops, bytes: a.bytes - b.bytes });
const times = ({ flops, bytes }: Work, n: number): Work => ({ flops: n * flops, bytes: n * bytes });

/**
 * The work of one image of a published model's training step at full size, by parts and in the order of computing, counted in
 * the graphs that are compiled. With recomputation, what is computed twice counts twice, as part of the gradient.
 */
export const reflStepWork = (name: string, options: PlanOptions): Promise<StepPart[]> =>
  withPlanned(name, { ...options, batch: 1 }, (planned) => [...before(planned, options), ...within(planned, options)]);

function before({ before }: Planned, { walk, compat }: PlanOptions): StepPart[] {
  if (!before) return [];
  const steps = walk.steps - walk.traced;
  const counted = new Set<Node>();
  const [output, ...unread] = before.step;
  const step = workOf([output], counted);
  const idle = compat === 'official' ? [{ name: 'frozen copy, unread', ...times(workOf(unread, counted), steps) }] : [];
  return [
    { name: 'condition', ...workOf([before.condition]) },
    { name: `${steps} steps without gradient`, ...times(step, steps) },
    ...idle,
  ];
}

function within(planned: Planned, options: PlanOptions): StepPart[] {
  const { trainee, terms, judge } = planned;
  const { side, moving } = options;
  const { images, drift } = trainee.restore(1);
  const targets = input('targets', [1, side, side, 3]);
  const captions = input('captions', [1, judge.positional_embedding.value.shape[0]], 'i32');
  const { losses, norms, gradients } = objective({ images, targets, captions }, terms, { weight: 1, pairs: drift });
  const decoder = decoderWork(planned, options);

  const counted = new Set<Node>();
  const part = (name: string, outputs: readonly Tensor[]): StepPart => ({ name, ...workOf(outputs, counted) });
  const [restored, copies] = [[images], drift.map(([, frozen]) => frozen)];
  const forward = { name: 'step with gradient', ...less(part('', restored), decoder.forward) };
  const judged = [
    part('frozen copy', copies),
    ...Object.keys(terms).flatMap((name) => [part(name, [losses[name]]), part(`${name}, gradient`, [norms[name]])]),
  ];
  const back = part('', gradients(trained(trainee.module)));
  return [
    forward,
    { name: 'decoder', ...decoder.forward },
    ...judged,
    { name: 'decoder, gradient', ...decoder.gradient },
    { name: 'step, gradient', ...less(back, decoder.gradient) },
    ...(moving ? [{ name: "judge's update", ...judgeWork(planned, options, moving.weight) }] : []),
  ];
}

const trained = (module: Module): Tensor[] =>
  [...module.namedParameters().values()].flatMap(({ value, trainable }) => (trainable ? [value] : []));

/** The decoder by itself, to tell it from the network before it: both are parts of one graph. */
function decoderWork({ model }: Planned, { side, recompute, compute }: PlanOptions): { forward: Work; gradient: Work } {
  const counted = new Set<Node>();
  const latent = input('latent', [1, side / model.factor, side / model.factor, model.channels], compute);
  const images = model.decode(latent, { recompute });
  const forward = workOf([images], counted);
  return { forward, gradient: workOf(grad([images], [latent]), counted) };
}

/** Of the judge's learning from one image, which it does every few steps. */
function judgeWork({ judge }: Planned, { side, recompute, compute, compat }: PlanOptions, weight: number): Work {
  const how = { batch: 1, side, weight, recompute, antialias: compat !== 'official' };
  const { outputs, gradients } = judgeGraph(judge, trained(judge), {
    ...how,
    compute: compute === 'f32' ? undefined : compute,
  });
  return workOf([...Object.values(outputs), ...gradients]);
}
