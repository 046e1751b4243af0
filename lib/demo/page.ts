import { relative, sep } from 'node:path';
import type { Share } from '../eval/interval.ts';
import { faceOf, restorerOf } from './candidates.ts';
import type { FrmFindings, FrmReport } from './report.ts';
import { demoCaption } from './settings.ts';

/** Inputs whose pictures are shown. */
const mostShown = 12;

const percent = (value: number): string => `${(100 * value).toFixed(1)}%`;
const shareText = ({ share, correct, count, low, high }: Share): string =>
  `${percent(share)} (${correct} of ${count}; 95%: ${percent(low)} to ${percent(high)})`;
const safe = (text: string): string =>
  text.replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c]!);
const table = (head: readonly string[], rows: readonly (readonly (string | number)[])[]): string => {
  const line = (cells: readonly (string | number)[], tag: string): string =>
    `<tr>${cells.map((cell) => `<${tag}>${safe(String(cell))}</${tag}>`).join('')}</tr>`;
  return `<table>${line(head, 'th')}${rows.map((row) => line(row, 'td')).join('')}</table>`;
};

/** The report as a page that shows pictures from the folders beside it. */
export function pageOf(report: FrmReport, findings: FrmFindings): string {
  const { rule, data, metrics, svm, agreement, byGap, byPerson, restorers, targets, seconds } = report;
  const names = { train: 'photographs to train on', morph: 'morphs to train on', heldout: 'photographs held out' };
  const minutes = Object.values(seconds).reduce((sum, value) => sum + value, 0) / 60;
  return `<!doctype html>
<html lang="en"><meta charset="utf-8"><title>A face reward model, from photographs to figures</title>
<style>
body { font: 15px/1.5 sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; margin: 1em 0 } td, th { border: 1px solid #bbb; padding: 0.2em 0.6em; text-align: left }
figure { display: inline-block; margin: 0.3em; font-size: 12px } figure img { width: 160px; height: 160px; display: block }
</style>
<h1>A face reward model, from photographs to figures</h1>
<p><b>What stands in for people.</b> ${safe(rule)}</p>
${table(
  ['', 'aimed at', 'found', ''],
  targets.map(({ what, least, found, reached }) => [
    what,
    percent(least),
    shareText(found),
    reached ? 'reached' : 'missed',
  ]),
)}
<p>The intervals (Wilson's) take pairs for independent. They are not: ${data.heldout.pairs} pairs come from
${data.heldout.inputs} inputs of ${data.heldout.people} people, so read the figures of each person, too.</p>
<h2>Data</h2>
${table(
  ['', 'people', 'degraded inputs', 'restorations', 'pairs', 'labelled by the rule'],
  (['train', 'morph', 'heldout'] as const).map((kind) => {
    const { people, inputs, pictures, pairs, chosen } = data[kind];
    return [names[kind], kind === 'morph' ? `${people} couples` : people, inputs, pictures, pairs, chosen];
  }),
)}
<p>Each input was restored in four ways, drawn of these; on the inputs to train on their mean distance to the original is:</p>
${table(
  ['restorer', 'distance'],
  restorers.map(({ name, distance }) => [name, distance.toFixed(4)]),
)}
<p>face-256 was trained on photographs of the people to train on, and never saw those held out.</p>
<h2>The classifier</h2>
<p>It sees ${metrics.length} metrics of each picture (${metrics.join(', ')}), some of which compare with the original, and not
the rule's distance.
Cost ${svm.cost}, gamma ${svm.gamma}, ${svm.vectors} support vectors; in ${svm.validation.folds} folds of training people
${shareText(svm.validation)}; on held-out people ${shareText(svm.heldOut)}. It labelled the pairs
of morphs that the rule did not.</p>
${table(
  ['metric', 'accuracy lost without it', 'alone, on training people'],
  svm.metrics.map(({ name, importance, alone, better }) => [
    name,
    percent(importance),
    `${better}: ${shareText(alone)}`,
  ]),
)}
<h2>Judges on pairs of held-out people</h2>
<p>frm sees a picture and the caption &ldquo;${demoCaption}&rdquo; and no original. ranking knows which restorer made a picture, and
orders pictures by the table above.</p>
${table(
  ['judge', 'all', 'closest quarter by the distances', 'second', 'third', 'clearest', 'closest quarter by the svm'],
  byGap.map(({ name, quarters }) => {
    const own = agreement.judges.find((judge) => judge.name === name)!;
    return [
      name,
      shareText(own.all),
      shareText(quarters[0]),
      ...quarters.slice(1).map(({ share }) => percent(share)),
      shareText(own.quarters[0]),
    ];
  }),
)}
${table(
  ['held-out person', 'frm'],
  byPerson.map(({ person, frm }) => [person, shareText(frm)]),
)}
<h2>Pictures of held-out people</h2>
<p>The degraded input, then its restorations by the reward model's score, the best first; below each the rule's distance.</p>
${picturesOf(findings)}
<h2>Time</h2>
<p>${minutes.toFixed(1)} minutes in this run: ${Object.entries(seconds)
    .map(([name, value]) => `${name} ${value.toFixed(0)} s`)
    .join(', ')}.</p>
</html>
`;
}

function picturesOf({ out, inputs, labels, judge, distanceOf }: FrmFindings): string {
  const figure = (path: string, text: string): string => {
    const source = relative(out, path).split(sep).map(encodeURIComponent).join('/');
    return `<figure><img src="${source}" alt="">${safe(text)}</figure>`;
  };
  const shown = inputs.filter(({ kind }) => kind === 'heldout').slice(0, mostShown);
  const rows = shown.map(({ id, degraded }) => {
    const own = labels.filter(({ a }) => faceOf(a) === id);
    const pictures = [...new Set(own.flatMap(({ a, b }) => [a, b]))];
    // How many of the others the judge finds worse.
    const wins = (picture: string): number =>
      own.filter((label) => (judge.margin(label) > 0 ? label.a : label.b) === picture).length;
    pictures.sort((x, y) => wins(y) - wins(x));
    const restored = pictures.map((path) => figure(path, `${restorerOf(path)}, ${distanceOf(path).toFixed(3)}`));
    return `<div>${figure(degraded, 'input')}${restored.join('')}</div>`;
  });
  return rows.join('\n');
}
