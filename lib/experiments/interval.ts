import type { ArmResult, ArmSettings } from './arm.ts';
import { silence } from './demo.ts';
import type { Experiment } from './report.ts';

/** How many updates of the restorer there are for each of the judge; the paper's answer is 10. */
const intervals = [1, 5, 10, 20];

/** Has the judge learn more and less often. */
export const interval = (settings: ArmSettings): Experiment => ({
  name: 'interval',
  title: 'How often the judge should learn',
  asks: 'The judge learns after every update of the restorer, after 5, 10 or 20 of them, or never. How often is enough?',
  run: async (arm) => {
    const results: ArmResult[] = [];
    for (const every of intervals) {
      const moving = { ...settings.moving!, every };
      const name = every === settings.moving!.every ? 'moving' : `every-${every}`;
      results.push(await arm({ name, says: `every ${every}`, settings: { ...settings, moving } }));
    }
    results.push(await arm({ name: 'fixed', says: 'never', settings: { ...settings, moving: undefined } }));
    return results;
  },
  findings: (arms) => arms.map((arm) => ({ ...silence(arm), what: `no detector is raised: ${arm.says}` })),
});
