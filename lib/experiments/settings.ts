import { paperJudge } from '../train/refl/session.ts';
import type { ArmSettings } from './arm.ts';

/**
 * What all experiments share at the demo's size: the run with everything on. By the paper's weights nothing would hold the pictures: a
 * small judge is steep, and its pull at the image was 1,400 times the wavelet loss's. By these, the mean norms at the image where the
 * judge learns are 0.039 of the distance that stands in for LPIPS, 0.017 of the reward (0.047 at first), 0.004 of the wavelet
 * loss, and 0.0015 of the drift.
 */
export const demoArm: ArmSettings = {
  ...{ steps: 120, batch: 3, lr: 1e-4, lookEvery: 20, seed: 5 },
  weights: { reward: 0.004, wavelet: 1, lpips: 0.03 },
  drift: 200,
  moving: { ...paperJudge, every: 1, lr: 2e-4 },
};

/** For a hack that can be seen: as much of the reward as makes the restorer paint a grid in 20 updates. */
export const hackingArm: ArmSettings = { ...demoArm, weights: { ...demoArm.weights, reward: 0.01 } };
