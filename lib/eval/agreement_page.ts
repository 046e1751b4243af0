import { escapeUTF8 } from 'entities';
import { decodeImage, sharpOf } from '../image/picture.ts';
import type { AgreementReport, DisputedPair } from './agreement.ts';
import { type ChartRow, sharesChart } from './charts.ts';
import type { Share } from './interval.ts';

/** Disputed pairs that are shown, and the sides of their pictures. */
const mostShown = 40;
const side = 224;

const percent = (share: number): string => (Number.isFinite(share) ? `${(100 * share).toFixed(1)}%` : 'none');

const quarters = ['closest quarter', 'second', 'third', 'clearest quarter'];

const style = `
  body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #222; }
  table { border-collapse: collapse; margin: 1rem 0; }
  th, td { padding: .25rem .75rem; text-align: left; border-bottom: 1px solid #ddd; font-variant-numeric: tabular-nums; }
  figure { display: inline-block; margin: 0 1.5rem 1.5rem 0; vertical-align: top; }
  figure img { width: ${side}px; height: ${side}px; object-fit: contain; background: #eee; margin-right: 8px; }
  img.preferred { outline: 4px solid #2a7; }
  figcaption { max-width: ${2 * side + 8}px; }
`;

/** An HTML page of a report that needs nothing beside itself: figures, charts as SVG, disputed pairs with their pictures. */
export async function agreementPage(report: AgreementReport): Promise<string> {
  const { judges, pairs, decided, people, first, among, disputed } = report;
  const rows = (groups: readonly string[], shares: (k: number, judge: number) => Share): ChartRow[] =>
    groups.flatMap((group, k) => judges.map(({ name }, j) => ({ group, judge: name, ...shares(k, j) })));
  const annotators = judges[0].annotators.map(({ annotator }) => annotator);
  const charts = await Promise.all([
    sharesChart(
      rows(['all', ...quarters], (k, j) => [judges[j].all, ...judges[j].quarters][k]),
      'By how close the pairs are',
    ),
    sharesChart(
      rows(annotators, (k, j) => judges[j].annotators[k].share),
      'By annotator',
    ),
  ]);
  const shown = disputed.slice(0, mostShown);
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Agreement with people</title>
<style>${style}</style>
<h1>Agreement with people</h1>
<p>${pairs} pairs of ${people} people who were held out, ${decided} of them decided. A was chosen in ${describe(first)}. Two annotators
of a pair chose alike: ${describe(among)}. Intervals are Wilson's, of 95%.</p>
<table>
<tr><th>judge<th>right<th>of<th>95%<th>with people where they and the svm differ
${judges.map(({ name, all, disputed: own }) => `<tr><td>${escapeUTF8(name)}<td>${percent(all.share)}<td>${all.count}<td>${bounds(all)}<td>${describe(own)}`).join('\n')}
</table>
${charts.map((svg) => `<figure>${svg}</figure>`).join('\n')}
<h2>Where people and the svm differ</h2>
<p>${shown.length} of ${disputed.length} pairs, those first of which the svm is surest. People preferred the outlined picture.</p>
${(await Promise.all(shown.map(figure))).join('\n')}
</html>
`;
}

const bounds = ({ low, high }: Share): string => `${percent(low)} to ${percent(high)}`;

const describe = (share: Share): string =>
  share.count ? `${percent(share.share)} of ${share.count} (${bounds(share)})` : 'none';

async function figure({ pair, a, b, share, margin, margins }: DisputedPair): Promise<string> {
  const image = async (path: string, preferred: boolean): Promise<string> => {
    const jpeg = await sharpOf(await decodeImage(path))
      .resize(side, side, { fit: 'inside', withoutEnlargement: true })
      .jpeg({ quality: 85 })
      .toBuffer();
    const source = `data:image/jpeg;base64,${jpeg.toString('base64')}`;
    return `<img src="${source}" alt="${escapeUTF8(path)}"${preferred ? ' class="preferred"' : ''}>`;
  };
  const judged = Object.entries({ svm: margin, ...margins })
    .map(([name, value]) => `${escapeUTF8(name)} ${value > 0 ? 'A' : 'B'} by ${Math.abs(value).toPrecision(2)}`)
    .join(', ');
  const pictures = `${await image(a, share > 0.5)}${await image(b, share < 0.5)}`;
  return `<figure>${pictures}<figcaption>${escapeUTF8(pair)}: people ${percent(share)} for A; ${judged}</figcaption></figure>`;
}
