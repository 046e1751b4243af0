import { escapeUTF8 } from 'entities';
import sharp from 'sharp';
import { curvesChart } from '../eval/charts.ts';
import { type ArmResult, type Look, lastOf } from './arm.ts';
import type { Material } from './material.ts';
import type { ExperimentReport } from './report.ts';
import { signed, type Value, values } from './values.ts';

/** Pictures that are shown. */
const mostShown = 6;

/** Parts of a picture, as fractions of the side: the second, eyes and nose of an aligned face, is shown larger. */
const whole = { left: 0, top: 0, side: 1 };
const detail = { left: 0.28, top: 0.38, side: 0.375 };

/** How many times stronger changes are shown: they are few levels of 255. */
const amplified = 32;

export const style = `
  body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #222; }
  table { border-collapse: collapse; margin: 1rem 0; }
  th, td { padding: .25rem .75rem; text-align: left; border-bottom: 1px solid #ddd; font-variant-numeric: tabular-nums; }
  .charts figure { display: inline-block; margin: 0 1rem 1rem 0; }
  .pictures { display: grid; gap: 4px; margin: 0 0 1.5rem; overflow-x: auto; }
  .pictures img { width: 100%; min-width: 9rem; display: block; }
  .pictures span { font-size: 13px; align-self: end; }
`;

/** A report as a page that needs nothing beside itself: findings, figures, curves as SVG, pictures. */
export async function experimentPage(report: ExperimentReport, material: Material): Promise<string> {
  const { title, asks, findings, arms, people, seconds } = report;
  const measures = values.filter((value) => value.of(arms[0].looks[0].observation) !== undefined);
  const charts = await Promise.all(measures.map((value) => curves(value, arms)));
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>${escapeUTF8(title)}</title>
<style>${style}</style>
<h1>${escapeUTF8(title)}</h1>
<p>${escapeUTF8(asks)}</p>
${table(
  ['looked for', 'found', ''],
  findings.map(({ what, found, reached }) => [what, found, reached ? 'seen' : 'not seen']),
)}
<h2>Figures</h2>
<p>Means over ${people.pictures} degraded pictures of ${people.held.length} people (${people.held.map(escapeUTF8).join(', ')}) whom neither the
restorer nor any judge was trained on. They are few: small differences mean nothing. Intervals take pictures as independent, which those of
one person are not.</p>
${table(['', 'at first', ...arms.map(({ says }) => says)], figures(measures, arms))}
<h2>What the watch said</h2>
<p>A detector is named with the number of updates after which it was raised first. By the judge that trains, it is what a user of
<code>train refl</code> reads; a judge that learns soon prefers the photographs, which keeps detectors quiet that want the reward to rise, so
the same is told by the judge as it ships.</p>
${table(
  ['', 'by the judge that trains', 'by the judge as it ships'],
  arms.map((arm) => [arm.says, raised(arm, 'alarms'), raised(arm, 'byFirstJudge')]),
)}
<h2>On the way</h2>
<div class="charts">
${charts.map((svg) => `<figure>${svg}</figure>`).join('\n')}
</div>
<h2>Pictures</h2>
<p>Of each picture the whole, eyes and nose, and what the training changed, made ${amplified} times stronger: a restorer that fools its judge
paints textures everywhere.</p>
${await pictures(arms, material)}
<h2>Settings</h2>
${table(
  ['', ...settingNames],
  arms.map((arm) => [arm.says, ...Object.values(settingsOf(arm))]),
)}
<p>${(seconds / 60).toFixed(1)} minutes in this run, which leaves out what was there already.</p>
</html>
`;
}

export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[], tag: string): string =>
    `<tr>${cells.map((cell) => `<${tag}>${escapeUTF8(cell)}`).join('')}`;
  return `<table>\n${[line(head, 'th'), ...rows.map((row) => line(row, 'td'))].join('\n')}\n</table>`;
}

const arrows = { higher: ' ↑', lower: ' ↓', zero: ' → 0' } as const;

function figures(measures: readonly Value[], arms: readonly ArmResult[]): string[][] {
  return measures.map(({ says, better, of }) => {
    const first = of(arms[0].looks[0].observation)!;
    const cell = (arm: ArmResult): string => {
      const last = of(lastOf(arm).observation)!;
      const change = last - first;
      return `${last.toFixed(4)} (${signed(change)})`;
    };
    return [says + (better ? arrows[better] : ''), first.toFixed(4), ...arms.map(cell)];
  });
}

/** The detectors that were raised, each with the first look that did. */
function raised({ looks, from }: ArmResult, by: 'alarms' | 'byFirstJudge'): string {
  const first = new Map<string, Look>();
  for (const look of looks) {
    for (const { detector } of look[by]) if (!first.has(detector)) first.set(detector, look);
  }
  const names = [...first].map(([detector, { step }]) => `${detector} (${from + step})`);
  return names.join(', ') || 'nothing';
}

const curves = ({ says, of }: Value, arms: readonly ArmResult[]): Promise<string> =>
  curvesChart(
    arms.flatMap((arm) =>
      arm.looks.map(({ step, observation }) => ({ run: arm.says, step: arm.from + step, value: of(observation)! })),
    ),
    says,
  );

const settingNames = ['updates', 'batch', 'learning rate', 'reward, wavelet, LPIPS, drift', 'judge'] as const;

function settingsOf(arm: ArmResult): Record<(typeof settingNames)[number], string> {
  const { batch, lr, weights, drift, moving } = arm.settings;
  return {
    updates: String(lastOf(arm).step),
    batch: String(batch),
    'learning rate': String(lr),
    'reward, wavelet, LPIPS, drift': [weights.reward, weights.wavelet, weights.lpips, drift].join(', '),
    judge: moving ? `every ${moving.every}, learning rate ${moving.lr}` : 'as it ships',
  };
}

async function pictures(arms: readonly ArmResult[], { side, held }: Material): Promise<string> {
  const heads = ['input', 'at first', ...arms.map(({ says }) => says), 'photograph'];
  const [begin, ...ends] = [arms[0].sheets.first, ...arms.map(({ sheets }) => sheets.last)];
  const rows: string[] = [];
  for (const i of held.slice(0, mostShown).keys()) {
    const cut = (sheet: string, column: number, { left, top, side: share } = whole): Promise<Buffer> => {
      const width = Math.round(share * side);
      const at = { left: column * side + Math.round(left * side), top: i * side + Math.round(top * side) };
      const region = sharp(sheet).extract({ ...at, width, height: width });
      return region.resize(side, side, { kernel: 'nearest' }).png().toBuffer();
    };
    for (const part of [whole, detail]) {
      const restored = [begin, ...ends].map((sheet) => cut(sheet, 1, part));
      rows.push(...(await Promise.all([cut(begin, 0, part), ...restored, cut(begin, 2, part)].map(shown))));
    }
    const before = await cut(begin, 1);
    const changes = ends.map(async (end) => shown(difference(await cut(end, 1), before)));
    rows.push('<span></span>', '<span></span>', ...(await Promise.all(changes)), '<span></span>');
  }
  const columns = `style="grid-template-columns: repeat(${heads.length}, 1fr)"`;
  const labels = heads.map((head) => `<span>${escapeUTF8(head)}</span>`);
  return `<div class="pictures" ${columns}>\n${[...labels, ...rows].join('\n')}\n</div>`;
}

/** How far a picture is from another of its size, level by level, {@link amplified}. */
export async function difference(picture: Buffer, other: Buffer): Promise<Buffer> {
  const { data, info } = await sharp(picture).raw().toBuffer({ resolveWithObject: true });
  const before = await sharp(other).raw().toBuffer();
  const apart = data.map((level, i) => Math.min(255, amplified * Math.abs(level - before[i])));
  return sharp(apart, { raw: info }).png().toBuffer();
}

async function shown(picture: Buffer | Promise<Buffer>): Promise<string> {
  const bytes = await sharp(await picture)
    .jpeg({ quality: 92, chromaSubsampling: '4:4:4' })
    .toBuffer();
  return `<img src="data:image/jpeg;base64,${bytes.toString('base64')}" alt="">`;
}
