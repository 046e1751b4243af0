import { join } from 'node:path';
import { shareOf } from '../data/comparisons.ts';
import { measuresOf, readMeasures } from '../data/measures.ts';
import { judgeByReward } from '../eval/reward_judge.ts';
import { openDevice } from '../runtime/index.ts';
import { labelPairs, writeLabels } from '../train/labels.ts';
import { searchPreference } from '../train/preference_search.ts';
import { type Sample, savePreferenceModel } from '../train/preference_svm.ts';
import { heldOutPeople } from './inputs.ts';
import { trainReward } from './judge.ts';
import { chooseByRule, type FrmDemoEvents, type FrmDemoOptions, makePairs, measuresPath, Stages } from './pairs.ts';
import { type FrmReport, reportFrm } from './report.ts';
import { demoCaption } from './settings.ts';

/**
 * A whole small run from photographs to a face reward model, through the same files as `data`, `train` and `label` write:
 * faces, degraded inputs, four restorations each, choices by a rule that stands in for people, the classifier that labels the
 * rest, a small CLIP drawn anew and trained on all of it, and a report on people that nothing was trained on. Started again,
 * it goes on where it was stopped. Throws what its parts throw.
 */
export async function demoFrm(options: FrmDemoOptions, events: FrmDemoEvents = {}): Promise<FrmReport> {
  const { out, device: kind, threads, signal, seed, svm: grid, measured } = options;
  const stages = new Stages(events);
  using device = await openDevice(kind, { threads });
  const pairs = await makePairs(device, options, stages);
  const { inputs, comparisons, distanceOf, inputOf } = pairs;

  // What people would say of the morphs that are measured is the classifier's to tell.
  const asked = comparisons.filter(({ a }) => {
    const { kind, number } = inputOf(a);
    return kind !== 'morph' || number >= measured.morph;
  });
  const verdicts = await chooseByRule(out, asked, pairs);
  const { value: measures } = await readMeasures(measuresPath(out));
  const { report: svm, labels } = await stages.run('classifier', async (onDone) => {
    const samples = asked.flatMap((comparison): Sample[] => {
      const values = measuresOf(measures, comparison);
      const { pair, person } = comparison;
      return values ? [{ pair, person, ...values, share: shareOf(verdicts.get(pair)!)! }] : [];
    });
    const search = { ...grid, holdout: heldOutPeople(inputs), seed };
    const found = await searchPreference(measures.metrics, samples, search, { signal, onTrained: onDone });
    const model = { ...found, metrics: measures.metrics };
    await savePreferenceModel(join(out, 'svm.json'), model);
    const labels = labelPairs(comparisons, verdicts, measures, model);
    await writeLabels(join(out, 'labels.jsonl'), labels);
    return { report: found.report, labels };
  });

  const { weights, tokenizer } = await trainReward(device, labels, options, stages);
  return await stages.run('report', async (onDone) => {
    const held = labels.filter(({ split }) => split === 'heldout');
    const judge = await judgeByReward(held, {
      ...{ name: 'frm', weights, tokenizer, caption: demoCaption },
      ...{ device: kind, threads, signal, batch: 4, onProgress: (fraction: number) => onDone(fraction, 1) },
    });
    const { seconds } = stages;
    return reportFrm({ out, inputs, labels, verdicts, judge, svm, distanceOf, options, seconds, weights });
  });
}
