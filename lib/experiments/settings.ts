import { paperJudge } from '../train/refl/session.ts';
import type { ArmSettings } from './arm.ts';

/** What all experiments share at the demo's size: the run with everything on. */
export const demoArm: ArmSettings = {
  ...{ steps: 160, batch: 2, lr: 5e-6, lookEvery: 20, seed: 5 },
  weights: { reward: 0.005, wavelet: 0.01, lpips: 0.01 },
  drift: 1,
  moving: { ...paperJudge, every: 1, lr: 1e-3 },
};
