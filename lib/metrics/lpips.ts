import { ReflError } from '../errors.ts';
import type { LPIPS } from '../models/lpips.ts';
import type { Parameters } from '../runtime/index.ts';
import type { WeightsFile } from '../weights/format.ts';
import { loadWeights } from '../weights/load.ts';
import { renamed } from '../weights/rename.ts';

/**
 * Loads LPIPS, frozen, from the files it is published in: torchvision's VGG16 (`features.0.weight`, ...; its classifier
 * is left aside) and LPIPS's linear layers (`lin0.model.1.weight`, ...), in any order; or one file of the whole module.
 * Throws ERR_WEIGHTS where a layer stands in none of them, and for all that {@link loadWeights} refuses.
 */
export async function loadLpips(parameters: Parameters, lpips: LPIPS, files: readonly WeightsFile[]): Promise<void> {
  const wanted = lpips.namedParameters();
  const official = new Map<string, string>();
  for (const key of wanted.keys()) official.set(key.replace(/^net\.slice\d+\./, 'features.'), key);
  const views = files.map((file) =>
    renamed(file, (key) => (/^(classifier|lins)\./.test(key) ? undefined : (official.get(key) ?? key))),
  );
  const missing = [...wanted.keys()].filter((key) => !views.some(({ entries }) => entries.has(key)));
  if (missing.length) {
    const names = files.map(({ path }) => path).join(', ');
    const what = missing.some((key) => key.startsWith('net.'))
      ? "VGG16's layers are in torchvision's vgg16 file"
      : "the linear layers are in LPIPS's weights/v0.1/vgg.pth";
    throw new ReflError(
      'ERR_WEIGHTS',
      `${names || 'no file'}: missing ${missing.length} of LPIPS, such as ${missing[0]}; ${what}`,
    );
  }
  for (const view of views) {
    const part = new Map([...wanted].filter(([key, { value }]) => view.entries.has(key) && !parameters.has(value)));
    await loadWeights(parameters, { namedParameters: () => part, namedBuffers: () => lpips.namedBuffers() }, view, {
      frozen: true,
    });
  }
}
