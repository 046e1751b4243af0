import { type ArmResult, type ArmSettings, lastOf } from './arm.ts';
import type { Experiment, Finding } from './report.ts';
import { changeOf, told, values } from './values.ts';

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
    others.map((other) => ({ ...comparison(all, other), what: `something is lost ${other.says}` })),
});

/** By what pictures are compared: measures that nothing trains by but LPIPS, and the texture that a fooled restorer paints. */
const compared = ['independent', 'perceptual', 'identity', 'landmarks', 'lpips', 'repetition'];

/** What a run lost in comparison to another, and what it gained, at their ends; changes that chance explains are neither. */
function comparison(all: ArmResult, other: ArmResult): Omit<Finding, 'what'> {
  const [a, b] = [all, other].map((arm) => lastOf(arm).each);
  const changes = { lost: [] as string[], gained: [] as string[] };
  for (const { name, better } of values) {
    if (!compared.includes(name) || !a[name]) continue;
    const change = changeOf(name, a, b);
    if (change.low > 0 || change.high < 0)
      changes[change.low > 0 === (better === 'higher') ? 'gained' : 'lost'].push(`${name} ${told(change)}`);
  }
  const found = Object.entries(changes).flatMap(([which, by]) => (by.length ? [`${which}: ${by.join(', ')}`] : []));
  return { found: found.join('; ') || 'no difference', reached: changes.lost.length > 0 };
}
