// timeout: 300 s
import { mkdir, readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import sharp from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ablation } from '../../lib/experiments/ablation.ts';
import { type Arm, type ArmResult, type ArmSettings, type Look, lastOf, runArm } from '../../lib/experiments/arm.ts';
import { reflDemo } from '../../lib/experiments/demo.ts';
import { hacking } from '../../lib/experiments/hacking.ts';
import { interval } from '../../lib/experiments/interval.ts';
import { type Material, reflMaterial } from '../../lib/experiments/material.ts';
import { difference, experimentPage } from '../../lib/experiments/page.ts';
import { type Experiment, runExperiment } from '../../lib/experiments/report.ts';
import { demoArm } from '../../lib/experiments/settings.ts';
import { shippedReward } from '../../lib/reward/shipped.ts';
import { type Device, openDevice } from '../../lib/runtime/index.ts';
import { readLabels } from '../../lib/train/labels.ts';
import { temporaryFolder } from '../restore/support.ts';

const folder = temporaryFolder();
const side = 64;

/** Small settings with everything on. */
const settings: ArmSettings = {
  ...demoArm,
  ...{ steps: 4, batch: 1, lookEvery: 2, lr: 1e-4 },
};

const test = suite<{ device: Device; material: Material }>('experiments', {} as never);
test.before(async (context) => {
  context.device = await openDevice('cpu', { threads: 1 });
  const photographs = join(folder, 'photographs');
  await mkdir(photographs);
  const held = ['portrait-1', 'portrait-2'].map((name) => ({
    person: name,
    clean: join(folder, `${name}.png`),
    degraded: join(folder, `${name}-degraded.png`),
  }));
  for (const { person, clean, degraded } of held) {
    const picture = sharp(fileURLToPath(new URL(`../../samples/${person}.jpg`, import.meta.url))).resize(side, side);
    await picture.png().toFile(clean);
    await sharp(await picture.blur(2).png().toBuffer()).toFile(degraded);
    await picture
      .resize(80, 80)
      .png()
      .toFile(join(photographs, `${person}.png`));
  }
  context.material = {
    ...{ side, held, judge: shippedReward, independent: shippedReward, key: 'test' },
    sources: [{ folder: photographs, weight: 1 }],
  };
});
test.after(({ device }) => device.dispose());

const bytes = (path: string): Promise<Buffer> => readFile(path);

test('an arm that was stopped goes on, and ends with the bits of one that was not', async ({ device, material }) => {
  const arm: Arm = { name: 'learning', says: 'judge learns', settings };
  const whole = await runArm(device, material, arm, join(folder, 'whole'));
  const controller = new AbortController();
  const stopped = runArm(device, material, arm, join(folder, 'stopped'), {
    signal: controller.signal,
    onStep: (done) => done === 3 && controller.abort(new Error('enough')),
  });
  assert.is(
    await stopped.then(
      () => 'finished',
      ({ message }: Error) => message,
    ),
    'enough',
  );
  const steps: number[] = [];
  const onStep = (done: number) => steps.push(done);
  const resumed = await runArm(device, material, arm, join(folder, 'stopped'), { onStep });
  assert.equal(steps, [4]);
  assert.equal(resumed.looks, whole.looks);
  assert.ok((await bytes(resumed.restorer)).equals(await bytes(whole.restorer)));
  assert.ok((await bytes(resumed.sheets.last)).equals(await bytes(whole.sheets.last)));
  assert.not.ok((await bytes(whole.sheets.first)).equals(await bytes(whole.sheets.last)));
  assert.equal(
    whole.looks.map(({ step }) => step),
    [0, 2, 4],
  );

  const again = await runArm(device, material, arm, join(folder, 'stopped'), { onStep });
  assert.equal(steps, [4], 'what is done is read back');
  assert.equal(again, { ...resumed, seconds: again.seconds });
  const { photographs } = whole.looks[0].observation;
  const { original } = whole.looks[0].observation.others!;
  assert.is(original, whole.looks[0].observation.reward, 'the judge has not learned yet');
  assert.ok(lastOf(whole).observation.photographs !== photographs, 'the judge learned');
  assert.is(whole.looks[0].observation.independent, original);
});

test('a judge that stays as it is does stay; other settings are other runs', async ({ device, material }) => {
  const arm: Arm = { name: 'learning', says: 'judge fixed', settings: { ...settings, moving: undefined, drift: 0 } };
  const { looks } = await runArm(device, material, arm, join(folder, 'whole'));
  for (const { observation } of looks) {
    assert.is(observation.reward, observation.others!.original);
    assert.is(observation.photographs, looks[0].observation.photographs);
  }
  assert.ok(lastOf({ looks }).observation.reward > looks[0].observation.reward, 'the reward that is trained by rises');
});

test('hacking ends at an alarm, and the repair begins there', async ({ device, material }) => {
  const asked: Arm[] = [];
  const seen: Look[] = [];
  const experiment = hacking({ ...settings, lr: 0.01 });
  const run = (arm: Arm) => {
    asked.push(arm);
    return runArm(device, material, arm, join(folder, 'hacking'), { onLook: (look) => seen.push(look) });
  };
  const [hacked, repaired] = await experiment.run(run);
  assert.is(lastOf(hacked).step, 2, 'a rate of 0.01 does not take four updates');
  assert.ok(lastOf(hacked).alarms.length);
  assert.is(asked[1].after, hacked);
  assert.is(repaired.from, 2);
  const [end, begin] = [lastOf(hacked), repaired.looks[0]].map(({ observation }) => observation.distances.rmse);
  assert.ok(Math.abs(begin / end - 1) < 1e-2, 'the restorer is the same, but for its rounding to half precision');
  assert.ok(repaired.looks[0].alarms.length, 'alarms are told by the look before anything was trained');
  assert.is(seen.length, hacked.looks.length + repaired.looks.length);

  const report = {
    ...{ name: 'hacking', title: experiment.title, asks: 'What & why?', arms: [hacked, repaired] },
    ...{ findings: experiment.findings([hacked, repaired]), people: { held: ['a', 'b'], pictures: 2 }, seconds: 60 },
  };
  assert.ok(report.findings[0].reached);
  assert.match(report.findings[0].found, /after 2 updates$/);
  const page = await experimentPage(report, material);
  for (const { detector } of lastOf(hacked).alarms) assert.ok(page.includes(`${detector} (2)`), detector);
  for (const arm of report.arms) {
    const { independent, distances, others } = lastOf(arm).observation;
    for (const value of [independent!, distances.perceptual, distances.identity, others!.psnr])
      assert.ok(page.includes(`>${value.toFixed(4)} (`), String(value));
  }
  // Two pictures, whole and in detail: input, at first, both arms, photograph; and what changed in the arms.
  assert.is([...page.matchAll(/<img /g)].length, 2 * (2 * 5 + 2));
  assert.ok([...page.matchAll(/<svg /g)].length >= 11);
  assert.match(page, /What &amp; why\?/);
});

test('experiments share their arms with the demonstration', async () => {
  const names = async (experiment: Experiment): Promise<Arm[]> => {
    const arms: Arm[] = [];
    await experiment.run(async (arm) => {
      arms.push(arm);
      return { ...arm, from: 0, looks: [], sheets: { first: '', last: '' }, restorer: '', seconds: 0 };
    });
    return arms;
  };
  const key = ({ name, settings: own }: Arm): string => JSON.stringify([name, own]);
  const demo = (await names(reflDemo(demoArm))).map(key);
  assert.is(demo.length, 2);
  for (const experiment of [ablation(demoArm), interval(demoArm)]) {
    const arms = (await names(experiment)).map(key);
    assert.is(new Set(arms).size, 5);
    for (const one of demo) assert.ok(arms.includes(one), experiment.name);
  }
});

test('changes of a level are shown, and large ones do not wrap', async () => {
  const [a, b] = await Promise.all(
    [
      [10, 20, 30],
      [9, 20, 90],
    ].map((levels) =>
      sharp(Uint8Array.from(levels), { raw: { width: 1, height: 1, channels: 3 } })
        .png()
        .toBuffer(),
    ),
  );
  assert.equal(
    [
      ...(await sharp(await difference(a, b))
        .raw()
        .toBuffer()),
    ],
    [32, 0, 255],
  );
});

test('an ablation tells what chance does not explain', () => {
  const from = { perceptual: [0.5, 0.7, 0.6, 0.8], identity: [0.3, 0.4, 0.5, 0.6], independent: [0, 0.1, 0.2, 0.3] };
  const arm = (change: Partial<Record<keyof typeof from, number[]>>) => {
    const each = Object.fromEntries(
      Object.entries(from).map(([name, all]) => [
        name,
        all.map((value, i) => value + (change[name as keyof typeof from]?.[i] ?? 0)),
      ]),
    );
    return { looks: [{ each }] } as unknown as ArmResult;
  };
  const same = arm({ identity: [0.1, -0.1, 0.1, -0.1] });
  const poorer = arm({ perceptual: [0.01, 0.02, 0.01, 0.02], independent: [-0.1, -0.1, -0.2, -0.2] });
  const mixed = arm({ perceptual: [0.01, 0.01, 0.01, 0.01], independent: [0.1, 0.1, 0.1, 0.1] });
  const [first, second, third] = ablation(demoArm).findings([arm({}), same, poorer, mixed]);
  assert.equal([first.found, first.reached], ['no difference', false]);
  assert.match(second.found, /^lost: independent −0\.1500 \(95%: .*\), perceptual \+0\.0150 \(95%: [^;]*\)$/);
  assert.ok(second.reached);
  assert.match(third.found, /^lost: perceptual \+0\.0100 .*; gained: independent \+0\.1000 /);
  assert.ok(third.reached);
});

test('from photographs to a report, and nothing is done twice', async () => {
  const faceApi = dirname(createRequire(import.meta.url).resolve('@vladmandic/face-api/package.json'));
  const out = join(folder, 'demo');
  const { independent } = reflMaterial;
  const clip = { ...independent.clip, vision_cfg: { ...independent.clip.vision_cfg, patch_size: 64, layers: 1 } };
  const material = {
    ...reflMaterial,
    ...{ heldOut: ['sample3_0'], looks: 2, morphs: 0 },
    independent: {
      ...independent,
      ...{ people: ['sample3_1'], morphs: 0, counts: { train: 1, morph: 0, heldout: 1 }, clip, steps: 1, batch: 2 },
    },
  };
  const workplace = { out, photographs: [join(faceApi, 'demo/sample3.jpg')], device: 'cpu', threads: 1 };
  const experiment = reflDemo({ ...settings, steps: 1, lookEvery: 1 });
  let steps = 0;
  const onProgress = (stage: string, done: number): void => {
    if (stage.startsWith('judge') && done) steps++;
  };
  const report = await runExperiment(experiment, material, workplace, { onProgress });
  assert.is(steps, 2);
  assert.equal(report.people, { held: ['sample3_0'], pictures: 2 });
  assert.is(report.findings.length, 5);
  assert.equal(JSON.parse(await readFile(join(out, 'demo.json'), 'utf8')), JSON.parse(JSON.stringify(report)));
  assert.match(await readFile(join(out, 'demo.html'), 'utf8'), /sample3_0/);
  const { value: labels } = await readLabels(join(out, 'independent', 'labels.jsonl'));
  const withOriginals = labels.filter(({ pair }) => pair.includes('original'));
  assert.is(withOriginals.length, 2 * 4, 'each of four restorations of two inputs');
  for (const { a, b, share } of withOriginals) assert.match(share ? a : b, /inputs.clean./);
  const again = await runExperiment(experiment, material, workplace, { onProgress });
  assert.is(steps, 2);
  assert.equal(again.findings, report.findings);
});

test.run();
