import type { CLIPConfig } from '../models/clip.ts';
import type { ClearFace } from './faces.ts';

export interface FrmDemoSettings {
  /** Names of the faces whose people are held out from all training, face-256's included. */
  readonly heldOut: readonly string[];
  /** Names of the faces whose people are trained on: those of all others when left out. */
  readonly people?: readonly string[];
  readonly morphs: number;
  /** Degraded inputs of each kind of face. */
  readonly counts: Readonly<Record<ClearFace['kind'], number>>;
  /**
   * Of how many inputs of each kind the classifier's metrics are measured, which takes most of the time. It learns from
   * photographs and labels morphs; the rule labels what is not measured.
   */
  readonly measured: Readonly<Record<ClearFace['kind'], number>>;
  /** Restorations of each input, and so six pairs of four. */
  readonly perFace: number;
  /** Whether trainDemoJudge also shows each restoration beside its original. Off by default. */
  readonly originals?: boolean;
  /** The classifier's six features of a picture. */
  readonly metrics: readonly string[];
  readonly svm: { readonly costs: readonly number[]; readonly gammas: readonly number[]; readonly folds: number };
  readonly clip: CLIPConfig;
  readonly steps: number;
  readonly batch: number;
  readonly lr: number;
  readonly warmup: number;
  readonly weightDecay: number;
  readonly seed: number;
}

/** Side of the faces, in pixels. */
export const demoSize = 256;

/** The caption of every picture: all show the same thing, and a model of this size learns how well, not what. */
export const demoCaption = 'a face';

export const demoStages = [
  'faces',
  'inputs',
  'candidates',
  'measures',
  'classifier',
  'reward model',
  'report',
] as const;
export type DemoStage = (typeof demoStages)[number];

/**
 * What the shipped model was made with. The people held out are those of README's quality table that the photographs show:
 * face-256 never saw them either.
 */
export const frmDemo: FrmDemoSettings = {
  heldOut: ['sample3_0', 'sample5_2', 'sample5_4', 'sample6'],
  morphs: 60,
  counts: { train: 300, morph: 300, heldout: 112 },
  measured: { train: 100, morph: 60, heldout: 112 },
  perFace: 4,
  // All of the set that needs no download but person_distance, which misleads here: face-256 knows the people to train on.
  metrics: ['psnr', 'ssim', 'landmark_shift', 'naturalness', 'sharpness', 'noise'],
  svm: { costs: [1, 10, 100], gammas: [0.01, 0.03, 0.1], folds: 4 },
  clip: {
    embed_dim: 64,
    vision_cfg: { image_size: 256, patch_size: 16, width: 64, layers: 2, head_width: 32 },
    text_cfg: { context_length: 16, vocab_size: 514, width: 32, heads: 2, layers: 1 },
  },
  ...{ steps: 1000, batch: 16, lr: 2e-3, warmup: 50, weightDecay: 0.2, seed: 1 },
};
