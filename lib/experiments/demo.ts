import { type ArmResult, type ArmSettings, lastOf } from './arm.ts';
import type { Experiment, Finding } from './report.ts';
import { measured } from './values.ts';

/** `demo refl`: one run whose judge goes on learning, and one whose judge does not. */
export const reflDemo = (settings: ArmSettings): Experiment => ({
  name: 'demo',
  title: 'A restorer trained by a reward model',
  asks:
    'face-256 trains by the reward of frm-256, a small face reward model, once with the judge learning all the while that the ' +
    'photographs are better, and once with the judge as it ships. Does a reward that rises mean better pictures?',
  run: async (arm) => [
    await arm({ name: 'moving', says: 'judge learns', settings }),
    await arm({ name: 'fixed', says: 'judge fixed', settings: { ...settings, moving: undefined } }),
  ],
  findings: ([moving, fixed]) => [
    changed('with the judge learning, the independent judge’s reward rises', moving, 'independent', (d) => d > 0),
    changed('with the judge learning, the identity distance does not grow', moving, 'identity', (d) => d <= 0),
    changed('with the judge learning, the perceptual distance does not grow', moving, 'perceptual', (d) => d <= 0),
    { ...silence(moving), what: 'with the judge learning, no detector is raised' },
    { ...alarmed(fixed), what: 'with the judge fixed, detectors are raised' },
  ],
});

/** How a value of the people held out changed in a run, and whether as it should. */
export function changed(
  what: string,
  { looks }: ArmResult,
  name: string,
  isReached: (change: number) => boolean,
): Finding {
  const [before, after] = [looks[0], lastOf({ looks })].map(({ observation }) => measured(observation, name));
  return {
    what,
    found: `${before.toFixed(4)} at first, ${after.toFixed(4)} at the end`,
    reached: isReached(after - before),
  };
}

/** Whether a run raised alarms, and when first. */
export function alarmed({ looks, from }: ArmResult): Omit<Finding, 'what'> {
  const first = looks.find(({ alarms }) => alarms.length);
  if (!first) return { found: 'none', reached: false };
  const names = first.alarms.map(({ detector }) => detector).join(', ');
  return { found: `${names} after ${from + first.step} updates`, reached: true };
}

export function silence(arm: ArmResult): Omit<Finding, 'what'> {
  const { found, reached } = alarmed(arm);
  return { found, reached: !reached };
}
