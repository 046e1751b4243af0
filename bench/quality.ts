// Fidelity of the default model on held-out faces: npm run bench:quality [-- FOLDER [DRAWS [MODEL]]]
// FOLDER holds clean aligned 256 x 256 faces of people the model never saw; without one, scripts/quality-data makes those of
// README's table. Prints a Markdown table, then one JSON line.
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { compareQuality, contenders, meanFidelity } from '../lib/eval/quality.ts';
import { decodeImage } from '../lib/image/picture.ts';
import { CropModel } from '../lib/restore/model.ts';
import { openDevice } from '../lib/runtime/index.ts';

const [folder = 'out/quality/heldout', draws = '8', model = 'face-256'] = process.argv.slice(2);
if (folder === 'out/quality/heldout' && !existsSync(folder))
  execFileSync('scripts/quality-data', { stdio: ['ignore', 'ignore', 'inherit'] });

using device = await openDevice('cpu');
const crops = await CropModel.load(device, model);
const names = (await readdir(folder)).filter((name) => name.endsWith('.png')).sort();
const faces = await Promise.all(names.map(async (name) => ({ name, clean: await decodeImage(join(folder, name)) })));
const rows = await compareQuality(device, faces, {
  draws: Number(draws),
  seed: 2026,
  restore: async (degraded) => (await crops.restore([degraded], { batch: 1, seed: 0 }))[0],
});
crops.dispose();

const means = meanFidelity(rows);
const better = rows.filter(({ fidelity }) => fidelity.model.psnr > fidelity.input.psnr).length;
console.log(`${faces.length} faces, ${draws} degradations each\n`);
console.log('| | PSNR dB | SSIM | feature distance |\n|---|---|---|---|');
for (const c of contenders) {
  const { psnr, ssim, distance } = means[c];
  console.log(`| ${c} | ${psnr.toFixed(2)} | ${ssim.toFixed(4)} | ${distance.toFixed(4)} |`);
}
console.log(`\nPSNR above the input's on ${better} of ${rows.length}\n`);
console.log(
  JSON.stringify({ bench: 'quality', model, faces: faces.length, draws: Number(draws), seed: 2026, means, better }),
);
