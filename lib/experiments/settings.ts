import { paperJudge } from '../train/refl/session.ts';
import type { ArmSettings } from './arm.ts';

/**
 * What all experiments share at the demo's size: the run with everything on. The paper's weights would leave the reward alone: a
 * small judge is steep, and its pull at the image was 1,400 times the wavelet loss's. By these, the norms at the image in the
 * run that the weights were chosen by were about 0.035 of the distance that stands in for LPIPS, 0.013 of the reward, 0.004 of the wavelet
 * loss, and up to 0.0007 of the drift.
 */
export const demoArm: ArmSettings = {
  ...{ steps: 120, batch: 3, lr: 1e-5, lookEvery: 20, seed: 5 },
  weights: { reward: 0.002, wavelet: 1, lpips: 0.03 },
  drift: 200,
  moving: { ...paperJudge, every: 1, lr: 2e-4 },
};
