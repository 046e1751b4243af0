import { readFile } from 'node:fs/promises';
import { escapeUTF8 } from 'entities';
import { curvesChart } from '../eval/charts.ts';
import type { Observation } from '../train/refl/watch.ts';
import { style, table } from './page.ts';
import type { TruncatedRun, TruncationReport } from './truncation.ts';

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;

const measures: Readonly<Record<string, (seen: Observation) => number>> = {
  'reward ↑': ({ reward }) => reward,
  'root mean square error ↓': ({ distances }) => distances.rmse,
  '1 − SSIM ↓': ({ distances }) => distances.structure,
};

/** The report as a page that needs nothing beside itself. */
export async function truncationPage({ settings, agreements, runs }: TruncationReport): Promise<string> {
  const { walk, compared, looks, steps } = settings;
  const says = (traced: number): string => (traced === walk ? `all ${walk}` : String(traced));
  const charts = await Promise.all(
    Object.entries(measures).map(([title, of]) =>
      curvesChart(
        runs.flatMap((run) =>
          run.looks.map(({ step, observation }) => ({ run: says(run.traced), step, value: of(observation) })),
        ),
        title,
      ),
    ),
  );
  const first = runs[0].looks[0].observation;
  const last = ({ looks }: TruncatedRun): Observation => looks[looks.length - 1].observation;
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>How many denoising steps need gradients</title>
<style>${style}</style>
<h1>How many denoising steps need gradients</h1>
<p>A small network of DiffBIR's form with random weights, ${walk} steps of DDIM from noise to image, trained by the reward model that ships and
by the wavelet loss. Random weights restore nothing, so this tells how gradients and memory behave, not what faces would gain.</p>
<h2>Beside the gradient of all ${walk} steps</h2>
<p>Means over ${compared} images, by the weights at the end of the run with ${says(runs[0].traced)}. Measured memory is by how much the process grew.</p>
${table(
  ['steps with gradients', 'cosine', 'length', 'memory planned', 'memory measured', 'seconds a gradient'],
  agreements.map(({ traced, cosine, length, planned, measured, seconds }) => [
    says(traced),
    cosine.toFixed(4),
    length.toFixed(3),
    megabytes(planned),
    megabytes(measured),
    seconds.toFixed(3),
  ]),
)}
<h2>After ${steps} updates</h2>
<p>Means over ${looks} crops of the same photographs that were not drawn for training.</p>
${table(
  ['', 'at first', ...runs.map(({ traced }) => says(traced))],
  Object.entries(measures).map(([name, of]) => [
    name,
    of(first).toFixed(4),
    ...runs.map((run) => of(last(run)).toFixed(4)),
  ]),
)}
<div class="charts">
${charts.map((svg) => `<figure>${svg}</figure>`).join('\n')}
</div>
<h2>Pictures</h2>
<p>Input, restoration and photograph, a row each, at the end of each run.</p>
${(await Promise.all(runs.map(sheet))).map((image, i) => `<figure><figcaption>${escapeUTF8(says(runs[i].traced))}</figcaption>${image}</figure>`).join('\n')}
</html>
`;
}

async function sheet({ sheet }: TruncatedRun): Promise<string> {
  return `<img src="data:image/png;base64,${(await readFile(sheet)).toString('base64')}" alt="">`;
}
