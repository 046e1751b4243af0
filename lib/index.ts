export { type ErrorCode, ReflError } from './errors.ts';
export { MetricSet, type MetricSetOptions } from './eval/metric_set.ts';
export type { ImageSource } from './image/picture.ts';
export {
  type Figures,
  type Restored,
  type RestoreOptions,
  Restorer,
  type RestorerOptions,
} from './restore/restorer.ts';
export {
  RewardModel,
  type RewardModelOptions,
  type Score,
  type ScoreOptions,
} from './reward/model.ts';
export type { Preprocessing } from './reward/pictures.ts';
export { Device, type DeviceOptions, openDevice } from './runtime/index.ts';
