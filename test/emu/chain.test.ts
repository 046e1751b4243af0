// timeout: 600 s
// What fuse() makes of random graphs gives the bits of separate nodes on device emu:0 (or the one that REFL_TEST_DEVICE
// names): in float32, and in 16 bits, where every node's result is rounded. A plan must not show in the numbers.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { fuse } from '../../lib/graph/fuse.ts';
import { lower } from '../../lib/graph/program.ts';
import { openDevice } from '../../lib/runtime/index.ts';
import { buildLibrary } from '../simt/build.ts';
import { randomGraph, sameAsUnfused } from '../support/graphs.ts';

const name = process.env.REFL_TEST_DEVICE ?? 'emu:0';
if (name === 'emu:0') process.env.REFL_EMU_LIB = await buildLibrary();
const device = await openDevice(name);
test.after(() => device.dispose());

for (const dtype of ['f32', 'bf16', 'f16'] as const) {
  test(`fused programs of random graphs in ${dtype} give the bits of unfused ones`, async () => {
    let chains = 0;
    for (let seed = 0; seed < 40; seed++) {
      const graph = randomGraph(seed, dtype);
      await sameAsUnfused(device, graph, seed);
      chains += lower(fuse(graph)).nodes.filter(({ op }) => op === 'chain').length;
    }
    assert.ok(chains > 40, `${chains} chains`);
  });
}

test.run();
