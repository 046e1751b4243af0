import { basename } from 'node:path';
import { findParts, parts as networks } from '../../lib/models/parts.ts';
import type { Device } from '../../lib/runtime/index.ts';
import { clipText, clipVision, compareHps } from './clip.ts';
import { compareColorFix } from './color_fix.ts';
import { compareDdimRefl } from './ddim_refl.ts';
import { compareDegradation } from './degradation.ts';
import { compareDtcwt } from './dtcwt.ts';
import { compareFull, type FullTrace } from './full.ts';
import {
  aestheticFull,
  arcfaceFull,
  clipiqaFull,
  fanFull,
  inceptionFull,
  maniqaFull,
  musiqFull,
} from './full_metrics.ts';
import { clipTextFull, hpsFull, lpipsFull, swinirFull, unetFull, vaeFull } from './full_models.ts';
import { Golden } from './golden.ts';
import { compareMetrics } from './metrics.ts';
import { controlnet, lora, lpips, swinir, unet, vae } from './models.ts';
import { compareModule, type Traced } from './module.ts';
import { compareOps } from './ops.ts';
import { comparePipeline } from './pipeline.ts';
import { compareHpsPreprocess, compareResize } from './preprocess.ts';
import { Report } from './report.ts';
import { compareSchedule } from './schedule.ts';
import { compareSvm } from './svm.ts';

type Suite = (device: Device, golden: Golden, report: Report) => Promise<void>;

const moduleSuite =
  (trace: (golden: Golden) => Traced): Suite =>
  (device, golden, report) =>
    compareModule(device, golden, trace, report);

const fullSuite =
  (trace: FullTrace): Suite =>
  (device, golden, report) =>
    compareFull(device, golden, trace, report);

/** What a file is compared with, by the beginning of its name; the longest that fits counts. */
const suites: Readonly<Record<string, Suite>> = {
  aesthetic_full: fullSuite(aestheticFull),
  arcface_full: fullSuite(arcfaceFull),
  clip_hps: compareHps,
  clip_text: moduleSuite(clipText),
  clip_text_full: fullSuite(clipTextFull),
  clip_vision: moduleSuite(clipVision),
  clipiqa_full: fullSuite(clipiqaFull),
  color_fix: compareColorFix,
  controlnet: moduleSuite(controlnet),
  ddim_refl: compareDdimRefl,
  degradation: compareDegradation,
  dtcwt: compareDtcwt,
  fan_full: fullSuite(fanFull),
  hps_preprocess: compareHpsPreprocess,
  hps_full: fullSuite(hpsFull),
  inception_full: fullSuite(inceptionFull),
  lora: moduleSuite(lora),
  // The official module lists its linear layers a second time.
  lpips_vgg: (device, golden, report) => compareModule(device, golden.without('weights.lins.'), lpips, report),
  lpips_vgg_full: fullSuite(lpipsFull),
  maniqa_full: fullSuite(maniqaFull),
  metrics: compareMetrics,
  musiq_full: fullSuite(musiqFull),
  ops: compareOps,
  pipeline: comparePipeline,
  resize224: compareResize,
  schedule: compareSchedule,
  svm: compareSvm,
  swinir: moduleSuite(swinir),
  swinir_full: fullSuite(swinirFull),
  unet: moduleSuite(unet),
  unet_full: fullSuite(unetFull),
  vae: moduleSuite(vae),
  vae_full: fullSuite(vaeFull),
};

/** Prefixes of file names that can be compared. */
export const knownPrefixes = Object.keys(suites);

/** Compares files of reference numbers with this implementation, printing one line a tensor. */
export async function runParity(
  device: Device,
  files: readonly string[],
  print: (line: string) => void,
): Promise<Report> {
  const report = new Report(print);
  for (const path of files) {
    const name = basename(path);
    const prefix = knownPrefixes.filter((p) => name.startsWith(p)).sort((a, b) => b.length - a.length)[0];
    try {
      const golden = await Golden.open(path);
      const weights = findParts(golden.file).map(({ part }) => networks[part]);
      if (golden.hasResults && prefix) await suites[prefix](device, golden, report);
      else if (golden.hasResults)
        report.fail(name, `names no known module; known beginnings: ${knownPrefixes.join(', ')}`);
      else if (!weights.length) report.fail(name, 'holds no reference numbers (out., grad.)');
      else report.skip(name, `holds weights (${weights.join(', ')}) and no reference numbers: nothing to compare`);
    } catch (error) {
      report.fail(name, (error as Error).message);
    }
  }
  return report;
}
