import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp, { type Sharp } from 'sharp';
import { type OneStepConfig, OneStepRestorer } from '../../lib/diffusion/onestep.ts';
import type { ReflError } from '../../lib/errors.ts';
import { writeSafetensors } from '../../lib/weights/write.ts';

/** A small restorer for squares of 32. Its last layer is zero and its timestep the first, so it is the identity to a grey level. */
export const tinyConfig: OneStepConfig = {
  size: 32,
  factor: 4,
  timestep: 0,
  tokens: 2,
  unet: {
    in_channels: 48,
    out_channels: 48,
    model_channels: 16,
    channel_mult: [1, 2],
    num_res_blocks: 1,
    attention_resolutions: [2],
    num_head_channels: 8,
    num_groups: 8,
    context_dim: 8,
    transformer_depth: 1,
  },
};

export interface TinyOptions {
  config?: unknown;
  format?: string;
  /** Changes a tensor's values before they are written. */
  change?: (key: string, values: Float32Array) => void;
  /** Keys left out of the file. */
  without?: readonly string[];
}

/** Writes a {@link tinyConfig} model with fixed weights. */
export async function writeTinyModel(path: string, options: TinyOptions = {}): Promise<void> {
  const { config = tinyConfig, format = 'refl-native/onestep', change, without = [] } = options;
  const parameters = [...new OneStepRestorer(tinyConfig).namedParameters()].filter(([key]) => !without.includes(key));
  const tensors = parameters.map(([key, { value, init }]) => {
    const data = (): Float32Array => {
      const values = Float32Array.from({ length: value.size }, (_, i) =>
        init === 'zeros' ? 0 : Math.sin(i * 12.9898) / 8,
      );
      change?.(key, values);
      return values;
    };
    return [key, { dtype: 'F32', shape: value.shape, data }] as const;
  });
  await writeSafetensors(path, new Map(tensors), { format, config: JSON.stringify(config) });
}

/** A folder that is gone when the process ends. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'refl-test-'));
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Smooth colours with some structure: a picture that resampling hardly changes. */
export function picture(width: number, height: number, channels: 3 | 4 = 3): Sharp {
  const data = new Uint8Array(width * height * channels);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let c = 0; c < channels; c++, i++) data[i] = 128 + 80 * Math.sin(x / (7 + c)) * Math.cos(y / (9 - c));
    }
  }
  return sharp(data, { raw: { width, height, channels } });
}

/** Largest difference of any byte. */
export const distance = (a: Uint8Array, b: Uint8Array): number =>
  a.reduce((most, v, i) => Math.max(most, Math.abs(v - b[i])), 0);

/** What a promise rejects with. */
export async function failure(promise: Promise<unknown>): Promise<ReflError> {
  const outcome = await promise.then(
    () => undefined,
    (error) => error,
  );
  if (!outcome) throw new Error('it did not fail');
  return outcome;
}
