// Training by rewards whose networks compute in 16 bits, on the CPU (or the device that REFL_TEST_DEVICE names).
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { DType, TypedArray } from '../../../lib/graph/dtype.ts';
import { type Device, openDevice } from '../../../lib/runtime/index.ts';
import { type ReflOptions, type ReflStep, trainRefl } from '../../../lib/train/refl/refl.ts';
import { openSafetensors } from '../../../lib/weights/safetensors.ts';
import { temporaryFolder } from '../../restore/support.ts';
import { sameBits } from '../../support/assert.ts';
import { errorOf } from '../../support/runtime.ts';
import { type Kind, kinds, made, options, pairs } from './small.ts';

const test = suite<{ device: Device }>('refl in 16 bits', {} as { device: Device });
test.before(async (context) => {
  context.device = await openDevice(process.env.REFL_TEST_DEVICE ?? 'cpu', { threads: 1 });
});
test.after(({ device }) => device.dispose());
const folder = temporaryFolder();

async function train(
  device: Device,
  kind: Kind,
  compute: DType | undefined,
  changed: Partial<ReflOptions> & { out: string },
): Promise<{ steps: ReflStep[]; values: Map<string, TypedArray> }> {
  const { models, parameters } = await made(device, kind, compute);
  const steps: ReflStep[] = [];
  const run = { ...options, steps: 2, compute, ...changed };
  try {
    await trainRefl(device, parameters, pairs, models, run, { onStep: (step) => steps.push(step) });
    const values = new Map<string, TypedArray>();
    for (const module of [models.trainee.module, models.judge]) {
      for (const [key, { value, trainable }] of module.namedParameters()) {
        if (trainable) values.set(key, await parameters.read(value));
      }
    }
    return { steps, values };
  } finally {
    models.trainee.dispose();
    parameters.dispose();
  }
}

for (const kind of kinds) {
  test(`${kind}: losses are those of float32 but for rounding, masters are float32, and a run goes on bit for bit`, async ({
    device,
  }) => {
    const at = (name: string): string => join(folder, `${kind}-${name}`);
    const exact = await train(device, kind, undefined, { out: at('exact'), steps: 1 });
    const whole = await train(device, kind, 'bf16', { out: at('whole') });
    const [a, b] = [exact, whole].map(({ steps: [{ losses }] }): Record<string, number> => ({ ...losses }));
    for (const [name, value] of Object.entries(a)) {
      const [got, limit] = [b[name], 0.02 * Math.abs(value) + 1e-3];
      assert.ok(Math.abs(got - value) < limit, `${name}: ${got}, in float32 ${value}`);
    }
    assert.is.not(b.total, a.total);

    const state = join(at('whole'), (await readdir(at('whole'))).filter((name) => name.startsWith('step-')).at(-1)!);
    const { entries } = await openSafetensors(state);
    assert.equal(new Set([...entries.values()].map(({ dtype }) => dtype)), new Set(['F32']));
    assert.ok([...whole.values.values()].every((values) => values instanceof Float32Array));

    await train(device, kind, 'bf16', { out: at('parts'), steps: 1 });
    const again = await train(device, kind, 'bf16', { out: at('parts') });
    assert.equal(
      again.steps.map(({ step }) => step),
      [2],
    );
    for (const [key, value] of whole.values) sameBits(again.values.get(key)!, value, key);
    const refused = await errorOf(() => train(device, kind, undefined, { out: at('parts'), steps: 4 }));
    assert.match(`${refused.code} ${refused.message}`, /^ERR_CHECKPOINT .*compute: "bf16", now none/);
  });
}

test.run();
