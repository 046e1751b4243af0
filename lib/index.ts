export { type ErrorCode, ReflError } from './errors.ts';
export { MetricSet, type MetricSetOptions } from './eval/metric_set.ts';
export type { ImageSource } from './image/picture.ts';
export { findModelFiles, type KnownModel, knownModels, type NeededFile, type Role } from './models/catalogue.ts';
export { type FoundPart, findParts } from './models/parts.ts';
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
export { type ConvertOptions, convertWeights } from './weights/convert.ts';
export type { Entry, WeightsFile } from './weights/format.ts';
export { openWeights } from './weights/open.ts';
