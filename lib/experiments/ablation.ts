import type { ArmResult, ArmSettings } from './arm.ts';
import { lastOf } from './arm.ts';
import type { Experiment, Finding } from './report.ts';
import { values } from './values.ts';

/** Leaves out one part of the training after another. */
export const ablation = (settings: ArmSettings): Experiment => ({
  name: 'ablation',
  title: 'What each part of the training is for',
  asks:
    'Training by rewards has four parts besides the restorer: the reward, losses that hold the image to the photograph (LPIPS, or ' +
    'where its files are missing a distance of its kind, and the wavelet low-pass), a regulariser that holds the restorer to what it was, and a judge that goes on ' +
    'learning. What happens without each?',
  run: async (arm) => {
    const { weights } = settings;
    const arms = [
      { name: 'moving', says: 'all', settings },
      { name: 'no-reward', says: 'without the reward', settings: { ...settings, weights: { ...weights, reward: 0 } } },
      {
        name: 'no-image-losses',
        says: 'without losses by the photograph',
        settings: { ...settings, weights: { ...weights, wavelet: 0, lpips: 0 } },
      },
      { name: 'no-drift', says: 'without the regulariser', settings: { ...settings, drift: 0 } },
      { name: 'fixed', says: 'without learning of the judge', settings: { ...settings, moving: undefined } },
    ];
    const results: ArmResult[] = [];
    for (const one of arms) results.push(await arm(one));
    return results;
  },
  findings: ([all, ...others]) =>
    others.map((other) => ({ ...worse(all, other), what: `the pictures are worse ${other.says}` })),
});

/** By which of the distances to the photographs a run ended farther away than another. */
function worse(all: ArmResult, other: ArmResult): Omit<Finding, 'what'> {
  const compared = values.filter(({ name }) => ['perceptual', 'identity', 'landmarks', 'lpips'].includes(name));
  const told = compared.flatMap(({ name, of }) => {
    const [a, b] = [all, other].map((arm) => of(lastOf(arm).observation));
    return a === undefined || b === undefined ? [] : [{ name, ratio: b / a - 1 }];
  });
  const found = told.map(({ name, ratio }) => `${name} ${ratio < 0 ? '−' : '+'}${Math.abs(100 * ratio).toFixed(2)}%`);
  return { found: found.join(', '), reached: told.every(({ ratio }) => ratio > 0) };
}
