import { type ArmResult, type ArmSettings, lastOf } from './arm.ts';
import { alarmed, changed } from './demo.ts';
import type { Experiment } from './report.ts';
import { measured } from './values.ts';

/** Trains by a judge that stays as it is until a detector is raised, then goes on by one that learns. */
export const hacking = (settings: ArmSettings): Experiment => ({
  name: 'hacking',
  title: 'Reward hacking, and a repair',
  asks:
    'A restorer trains by a judge that does not learn, until the watch is alarmed. Then the judge begins to learn that ' +
    'photographs are better. Do the alarms end, and do the pictures come back?',
  run: async (arm) => {
    const fixed = { ...settings, moving: undefined, untilAlarm: true };
    const hacked = await arm({ name: 'until-alarm', says: 'judge fixed, until an alarm', settings: fixed });
    return [hacked, await arm({ name: 'repair', says: 'judge learns, from there', settings, after: hacked })];
  },
  findings: ([hacked, repaired]) => [
    { ...alarmed(hacked), what: 'with the judge fixed, detectors are raised' },
    ended(repaired),
    changed('the perceptual distance falls again', repaired, 'perceptual', 'falls'),
    changed('the identity distance falls again', repaired, 'identity', 'falls'),
    {
      what: 'the perceptual distance comes back to what it was at first',
      found: [hacked.looks[0], lastOf(hacked), lastOf(repaired)]
        .map(({ observation }) => measured(observation, 'perceptual').toFixed(4))
        .join(', then '),
      reached:
        measured(lastOf(repaired).observation, 'perceptual') <= measured(hacked.looks[0].observation, 'perceptual'),
    },
  ],
});

/** Whether alarms, also by the judge as it ships, have ended at the end of a run. */
function ended(arm: ArmResult) {
  const { alarms, byFirstJudge } = lastOf(arm);
  const names = [...new Set([...alarms, ...byFirstJudge].map(({ detector }) => detector))];
  return {
    what: 'with the judge learning, all detectors fall silent, by either judge',
    found: names.length ? `${names.join(', ')} at the end` : 'none at the end',
    reached: !names.length,
  };
}
