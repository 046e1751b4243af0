/** Training restorers by rewards: what `refl-native train refl` is made of, for other networks and other judges. */
export type { PairSource } from '../data/pairs.ts';
export { frmReward, type Judged, type Reward } from '../reward/reward.ts';
export {
  type Drift,
  type ImageLoss,
  lpipsLoss,
  objective,
  paperWeights,
  rewardLoss,
  type Weighted,
  waveletLoss,
} from './refl/objective.ts';
export { type ReflEvents, type ReflObservation, type ReflOptions, type ReflStep, trainRefl } from './refl/refl.ts';
export type { Restored } from './refl/restored.ts';
export { paperWalk, type WalkOptions } from './refl/rollout.ts';
export { type MovingOptions, paperJudge, type ReflModels } from './refl/session.ts';
export { ControlLDMTrainee, NetworkTrainee, OSEDiffTrainee, type Sample, type Trainee } from './refl/trainees.ts';
export { type Held, Validation, type ValidationModels } from './refl/validation.ts';
export { type Alarm, alarmsOf, limits, type Observation, signalsOf } from './refl/watch.ts';
