// timeout: 600 s
// A restoration by the CUDA backend over the emulator, whole and in tiles, against the CPU's.
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { DiffBIRModel, diffbirVersions } from '../../lib/restore/diffbir.ts';
import { Stages } from '../../lib/restore/stages.ts';
import { openDevice } from '../../lib/runtime/index.ts';
import { openDiffBIR, tinyDiffBIR, writeDiffBIR } from '../restore/latent_support.ts';
import { distance, picture, temporaryFolder } from '../restore/support.ts';
import { buildLibrary } from '../simt/build.ts';

const folder = temporaryFolder();
const paths = await writeDiffBIR((name) => join(folder, name));
const image = { width: 36, height: 28, data: new Uint8Array(await picture(36, 28).raw().toBuffer()) };

async function restore(kind: string, memory: number): Promise<Uint8Array> {
  using device = await openDevice(kind, { threads: 1 });
  const options = { name: 'tiny', size: 36, stages: new Stages(device, memory) };
  const model = await DiffBIRModel.load(options, diffbirVersions.v1, await openDiffBIR(paths), tinyDiffBIR);
  const settings = { steps: 2, fidelity: 0.2, start: 'condition' } as const;
  const [{ data }] = await model.restore([image], { batch: 1, seed: 3, ...settings });
  model.dispose();
  return data;
}

for (const [what, memory] of [
  ['whole', 1e9],
  ['in tiles', 0],
] as const) {
  test(`DiffBIR on emu:0, ${what}, restores as on the CPU`, async () => {
    process.env.REFL_EMU_LIB = await buildLibrary();
    const expected = await restore('cpu', memory);
    assert.ok(distance(await restore('emu:0', memory), expected) <= 1);
    assert.ok(distance(expected, image.data) > 20, 'it changes pictures');
  });
}

test.run();
