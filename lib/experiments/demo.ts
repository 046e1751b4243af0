import type { Mean } from '../eval/interval.ts';
import { type ArmResult, type ArmSettings, lastOf } from './arm.ts';
import type { Experiment, Finding } from './report.ts';
import { changeOf, measured, told } from './values.ts';

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
    changed('with the judge learning, the independent judge’s reward rises', moving, 'independent', 'rises'),
    changed('with the judge learning, the identity distance does not grow', moving, 'identity', 'does not grow'),
    changed('with the judge learning, the perceptual distance does not grow', moving, 'perceptual', 'does not grow'),
    { ...silence(moving), what: 'with the judge learning, no detector is raised' },
    { ...alarmed(fixed), what: 'with the judge fixed, detectors are raised' },
  ],
});

/** What a change, of which an interval is known, should be. A growth that chance explains is none. */
const wanted = {
  rises: ({ low }: Mean) => low > 0,
  falls: ({ high }: Mean) => high < 0,
  'does not grow': ({ low }: Mean) => low <= 0,
} as const;

/** How a value of the people held out changed in a run, picture by picture, and whether as it should. */
export function changed(what: string, { looks }: ArmResult, name: string, how: keyof typeof wanted): Finding {
  const [before, after] = [looks[0], lastOf({ looks })];
  const change = changeOf(name, before.each, after.each);
  const [from, to] = [before, after].map(({ observation }) => measured(observation, name).toFixed(4));
  return { what, found: `${from} at first, ${to} at the end: ${told(change)}`, reached: wanted[how](change) };
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
