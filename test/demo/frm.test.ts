// timeout: 300 s
import { readFile, rename, stat } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { demoFrm } from '../../lib/demo/frm.ts';
import { trainDemoJudge } from '../../lib/demo/judge.ts';
import type { FrmDemoOptions } from '../../lib/demo/pairs.ts';
import { frmDemo } from '../../lib/demo/settings.ts';
import { RewardModel } from '../../lib/reward/model.ts';
import { readLabels } from '../../lib/train/labels.ts';
import { temporaryFolder } from '../restore/support.ts';
import { codeOf } from '../support/runtime.ts';

const test = suite('demo frm');
const out = join(temporaryFolder(), 'demo');
const folder = dirname(createRequire(import.meta.url).resolve('@vladmandic/face-api/package.json'));

/** Everything of the demo's, as little of it as works. */
const tiny: FrmDemoOptions = {
  ...frmDemo,
  photographs: [join(folder, 'demo/sample3.jpg')],
  heldOut: ['sample3_0'],
  morphs: 1,
  counts: { train: 5, morph: 2, heldout: 2 },
  measured: { train: 4, morph: 1, heldout: 2 },
  svm: { costs: [10], gammas: [0.1], folds: 2 },
  clip: { ...frmDemo.clip, vision_cfg: { ...frmDemo.clip.vision_cfg, patch_size: 64, layers: 1 } },
  ...{ steps: 4, batch: 2, warmup: 1, out, device: 'cpu', threads: 1 },
};

test('from a photograph to a report; stopped on the way and started again, nothing is done twice', async () => {
  const controller = new AbortController();
  const stages: string[] = [];
  const stopped = demoFrm(
    { ...tiny, signal: controller.signal },
    {
      onProgress: (stage, done) => {
        if (stage === 'measures' && done === 5) controller.abort(new Error('enough'));
      },
    },
  );
  assert.is(
    await stopped.then(
      () => 'finished',
      (error: Error) => error.message,
    ),
    'enough',
  );
  const made = await stat(join(out, 'faces', 'manifest.json'));
  let measured = 0;
  const report = await demoFrm(tiny, {
    onProgress: (stage, done) => {
      if (stages.at(-1) !== stage) stages.push(stage);
      else if (stage === 'measures' && done > 0) measured++;
    },
  });
  assert.equal(stages, ['faces', 'inputs', 'candidates', 'measures', 'classifier', 'reward model', 'report']);
  assert.is((await stat(join(out, 'faces', 'manifest.json'))).mtimeMs, made.mtimeMs);
  assert.is(measured, 9 * 4 - 5);

  assert.equal(report.data, {
    train: { people: 2, inputs: 5, pictures: 20, pairs: 30, chosen: 30 },
    morph: { people: 1, inputs: 2, pictures: 8, pairs: 12, chosen: 6 },
    heldout: { people: 1, inputs: 2, pictures: 8, pairs: 12, chosen: 12 },
  });
  const { value: labels } = await readLabels(join(out, 'labels.jsonl'));
  for (const { person, split, source } of labels) {
    assert.is(split, person === 'sample3_0' ? 'heldout' : 'train');
    if (!person.includes('+')) assert.is(source, 'people');
  }
  assert.equal(
    report.targets.map(({ found }) => found.count),
    [12, 12, 3, 3],
  );
  // The rule's own gaps order the quarters, so the rule itself would always be right, and the restorers' order mostly is.
  assert.is(report.byGap.length, 3);
  assert.ok(report.restorers.find(({ name }) => name === 'face-256')!.distance < report.restorers.at(-1)!.distance);
  const page = await readFile(join(out, 'report.html'), 'utf8');
  for (const [, source] of page.matchAll(/<img src="([^"]+)"/g)) await stat(join(out, decodeURIComponent(source)));
  assert.is([...page.matchAll(/<figure>/g)].length, 2 * 5);
  assert.match(page, /No person chose anything here/);
});

test('a folder whose model was trained on other pairs is refused', async () => {
  assert.is(await codeOf(() => demoFrm({ ...tiny, perFace: 3 })), 'ERR_CHECKPOINT');
});

test('a judge of other people, by the same code; nobody is trained on and held out', async () => {
  const options = { ...tiny, out: join(temporaryFolder(), 'judge'), morphs: 0, people: ['sample3_1'], seed: 2 };
  assert.is(await codeOf(() => trainDemoJudge({ ...options, people: ['sample3'] })), 'ERR_OPTION');
  assert.is(await codeOf(() => trainDemoJudge({ ...options, people: ['sample3_9'] })), 'ERR_OPTION');
  const { weights, tokenizer, caption } = await trainDemoJudge(options);
  const { value: labels } = await readLabels(join(options.out, 'labels.jsonl'));
  const people = (split: string) =>
    new Set(labels.filter((label) => label.split === split).map(({ person }) => person));
  assert.equal([people('train'), people('heldout')], [new Set(['sample3_1']), new Set(['sample3_0'])]);
  using model = await RewardModel.load({ weights, tokenizer, device: 'cpu', threads: 1 });
  const [{ score }] = await model.score([labels[0].a], [caption]);
  assert.ok(Math.abs(score) <= 1);

  // Elsewhere, and with another number of threads, it is as finished as it was.
  const moved = join(dirname(options.out), 'moved');
  const before = await readFile(weights);
  await rename(options.out, moved);
  const done: string[] = [];
  const again = await trainDemoJudge(
    { ...options, out: moved, threads: 2 },
    { onProgress: (stage, count) => count > 0 && done.push(stage) },
  );
  assert.ok((await readFile(again.weights)).equals(before));
  assert.not.ok(done.includes('reward model'), JSON.stringify(done));
});

test.run();
