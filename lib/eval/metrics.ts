// The metrics that pictures can be measured by: those that need no download, and published ones whose files a user brings.
import { fileURLToPath } from 'node:url';
import { cosineSimilarity } from '../graph/ops/reward.ts';
import { constant, type Tensor } from '../graph/tensor.ts';
import { aesthetic, loadAesthetic } from '../metrics/aesthetic.ts';
import { clipiqa, loadClipiqa, promptFeatures } from '../metrics/clipiqa.ts';
import { noiseLevel, sharpness } from '../metrics/estimates.ts';
import { psnr, ssim } from '../metrics/fidelity.ts';
import { degrees, identityPreprocess, loadIdentity } from '../metrics/identity.ts';
import { heatmaps, landmarkDistance, landmarkPreprocess, landmarks, loadLandmarks } from '../metrics/landmarks.ts';
import { loadLpips } from '../metrics/lpips.ts';
import { loadManiqa } from '../metrics/maniqa.ts';
import { loadMusiq, musiq } from '../metrics/musiq.ts';
import { readNaturalness } from '../metrics/naturalness.ts';
import { AestheticPredictor, vitL14Visual } from '../models/aesthetic.ts';
import { ResNetFace } from '../models/arcface.ts';
import { VisionTransformer } from '../models/clip.ts';
import { ClipResNet } from '../models/clip_resnet.ts';
import { FAN } from '../models/fan.ts';
import { LPIPS } from '../models/lpips.ts';
import { MANIQA } from '../models/maniqa.ts';
import { MUSIQ } from '../models/musiq.ts';
import { type Device, evaluate, type Parameters } from '../runtime/index.ts';
import { openWeights } from '../weights/open.ts';
import {
  GraphMeter,
  LandmarkMeter,
  ManiqaMeter,
  type Meter,
  NaturalnessMeter,
  PersonMeter,
  type ReferenceFaces,
  unit,
} from './meters.ts';

/** What the meters of a set share. */
export interface Bench {
  readonly device: Device;
  readonly parameters: Parameters;
  /** Loaded when the first metric asks. */
  faces(): Promise<ReferenceFaces>;
}

export interface Metric {
  readonly name: string;
  /** What it says, in a line. */
  readonly describe: string;
  readonly better: 'higher' | 'lower';
  /** Whether it compares a picture with its reference. */
  readonly paired: boolean;
  /** Files it needs, each by the names it is published under, without their endings. None for those that need no download. */
  readonly files: readonly (readonly string[])[];
  load(bench: Bench, paths: readonly string[]): Promise<Meter>;
}

/** A metric that is a graph of both pictures in [0, 1] and needs no files. */
const pairGraph =
  (of: (a: Tensor, b: Tensor) => Tensor): Metric['load'] =>
  async ({ device, parameters }) =>
    new GraphMeter(device, parameters, (x, y) => of(unit(x), unit(y)), { paired: true });

const graph =
  (of: (x: Tensor) => Tensor): Metric['load'] =>
  async ({ device, parameters }) =>
    new GraphMeter(device, parameters, (x) => of(unit(x)));

const ownStatistics = fileURLToPath(new URL('../../weights/naturalness.safetensors', import.meta.url));

const fidelity: readonly Metric[] = [
  {
    name: 'psnr',
    describe: 'peak signal-to-noise ratio over RGB, dB',
    better: 'higher',
    paired: true,
    files: [],
    load: pairGraph(psnr),
  },
  {
    name: 'ssim',
    describe: 'structural similarity (Wang et al. 2004), over RGB',
    better: 'higher',
    paired: true,
    files: [],
    load: pairGraph(ssim),
  },
];

/** The set that needs no download. None of these bears a published metric's name but PSNR and SSIM, which are formulas. */
export const defaultMetrics: readonly Metric[] = [
  ...fidelity,
  {
    name: 'landmark_shift',
    describe: "mean shift of face-api's 68 landmarks, per cent of the distance of the eyes",
    better: 'lower',
    paired: true,
    files: [],
    load: async (bench) => new LandmarkMeter(await bench.faces()),
  },
  {
    name: 'person_distance',
    describe: "distance in face-api's recognition network",
    better: 'lower',
    paired: true,
    files: [],
    load: async (bench) => new PersonMeter(await bench.faces()),
  },
  {
    name: 'naturalness',
    describe: "distance from natural pictures, of NIQE's form with statistics of our own",
    better: 'lower',
    paired: false,
    files: [],
    load: async () => NaturalnessMeter.load(await readNaturalness(ownStatistics)),
  },
  {
    name: 'sharpness',
    describe: 'deviation of the Laplacian, levels of 255',
    better: 'higher',
    paired: false,
    files: [],
    load: graph(sharpness),
  },
  {
    name: 'noise',
    describe: 'estimate of the noise (Immerkaer 1996), levels of 255',
    better: 'lower',
    paired: false,
    files: [],
    load: graph(noiseLevel),
  },
];

/** Published metrics, from the files of their networks. */
export const publishedMetrics: readonly Metric[] = [
  ...fidelity,
  {
    name: 'lpips',
    describe: 'LPIPS 0.1 on VGG16 (Zhang et al. 2018)',
    better: 'lower',
    paired: true,
    files: [
      ['vgg16-397923af', 'vgg16'],
      ['vgg', 'lpips_lin_vgg_v01'],
    ],
    load: async ({ device, parameters }, paths) => {
      const network = new LPIPS();
      await loadLpips(parameters, network, await Promise.all(paths.map(openWeights)));
      const of = (x: Tensor, y: Tensor): Tensor => network.forward(unit(x), unit(y), { normalize: true }).distance;
      return new GraphMeter(device, parameters, of, { paired: true });
    },
  },
  {
    name: 'lmd',
    describe: "landmark distance of FAN's 98 points, pixels of the picture",
    better: 'lower',
    paired: true,
    files: [['alignment_WFLW_4HG', 'WFLW_4HG']],
    load: async ({ device, parameters }, [path]) => {
      const network = new FAN();
      await loadLandmarks(parameters, network, await openWeights(path));
      const points = (x: Tensor): Tensor =>
        landmarks(heatmaps(network.forward(landmarkPreprocess(unit(x)))), [x.shape[1], x.shape[2]]);
      return new GraphMeter(device, parameters, (x, y) => landmarkDistance(points(x), points(y)), { paired: true });
    },
  },
  {
    name: 'deg',
    describe: "angle between ArcFace's embeddings, degrees",
    better: 'lower',
    paired: true,
    files: [['resnet18_110']],
    load: async ({ device, parameters }, [path]) => {
      const network = new ResNetFace();
      await loadIdentity(parameters, network, await openWeights(path));
      const embed = (x: Tensor): Tensor => network.forward(identityPreprocess(unit(x)));
      const of = (x: Tensor, y: Tensor): Tensor => cosineSimilarity(embed(x), embed(y));
      return new GraphMeter(device, parameters, of, { paired: true, finish: degrees });
    },
  },
  {
    name: 'musiq',
    describe: 'MUSIQ, trained on KonIQ-10k (Ke et al. 2021)',
    better: 'higher',
    paired: false,
    files: [['musiq_koniq_ckpt-e95806b9', 'musiq_koniq_ckpt']],
    load: async ({ device, parameters }, [path]) => {
      const network = new MUSIQ();
      await loadMusiq(parameters, network, await openWeights(path));
      return new GraphMeter(device, parameters, (x) => musiq(network, unit(x)));
    },
  },
  {
    name: 'maniqa',
    describe: 'MANIQA, trained on KonIQ-10k, of 20 crops (Yang et al. 2022)',
    better: 'higher',
    paired: false,
    files: [['ckpt_koniq10k']],
    load: async ({ device, parameters }, [path]) => {
      const network = new MANIQA();
      await loadManiqa(parameters, network, await openWeights(path));
      return ManiqaMeter.load(device, parameters, network);
    },
  },
  {
    name: 'clipiqa',
    describe: 'CLIPIQA on CLIP RN50 (Wang et al. 2023)',
    better: 'higher',
    paired: false,
    files: [['RN50']],
    load: async ({ device, parameters }, [path]) => {
      const network = new ClipResNet();
      await loadClipiqa(parameters, network, await openWeights(path));
      const prompts = promptFeatures(network);
      const { texts } = await evaluate(device, { texts: prompts }, {}, parameters);
      return new GraphMeter(device, parameters, (x) =>
        clipiqa(network, unit(x), constant(texts, prompts.shape, 'f32')),
      );
    },
  },
  {
    name: 'aesthetic',
    describe: "LAION's aesthetic score on CLIP ViT-L/14",
    better: 'higher',
    paired: false,
    files: [['ViT-L-14'], ['sac+logos+ava1-l14-linearMSE']],
    load: async ({ device, parameters }, paths) => {
      const networks = { visual: new VisionTransformer(vitL14Visual), predictor: new AestheticPredictor() };
      await loadAesthetic(parameters, networks, await Promise.all(paths.map(openWeights)));
      return new GraphMeter(device, parameters, (x) => aesthetic(networks, unit(x)));
    },
  },
  {
    name: 'niqe',
    describe: 'NIQE (Mittal et al. 2013)',
    better: 'lower',
    paired: false,
    files: [['niqe_pris_params', 'niqe_modelparameters', 'modelparameters']],
    load: async (_, [path]) => NaturalnessMeter.load(await readNaturalness(path)),
  },
];

/** Names under which pytorch-fid's Inception is published: with it a whole set of pictures has a Frechet distance. */
export const inceptionFile = ['pt_inception-2015-12-05-6726825d'] as const;
