// Memory of whole training steps at full size, as the plan has it: no kernel runs, and nothing is allocated.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type PlanOptions, planMemory } from '../../../lib/train/refl/plan.ts';
import { paperWalk } from '../../../lib/train/refl/rollout.ts';
import { paperJudge } from '../../../lib/train/refl/session.ts';

/** DiffusionReward's recipe at 512 x 512, batch 1, in 16 bits with float32 masters. */
const paper: PlanOptions = {
  ...{ side: 512, batch: 1, accumulate: 4, recompute: true, compute: 'bf16' },
  ...{ walk: paperWalk, moving: paperJudge },
};
const gigabytes = async (name: string, options: Partial<PlanOptions> = {}): Promise<number> => {
  const { state, programs } = await planMemory(name, { ...paper, ...options });
  return (state + programs) / 1e9;
};

test("DiffBIR's ControlNet and the face reward model train within 24 GB", async () => {
  assert.is((await planMemory('diffbir-v1', paper)).trained, 363_153_280);
  const all = await gigabytes('diffbir-v1');
  assert.ok(all < 24, `${all} GB`);
  // What the options are for.
  assert.ok((await gigabytes('diffbir-v1', { recompute: false })) > all + 1);
  assert.ok((await gigabytes('diffbir-v1', { compute: 'f32' })) > all + 3);
  assert.ok((await gigabytes('diffbir-v1', { moving: undefined })) < all - 5);
});

test("OSEDiff's adapters and the face reward model train within 16 GB", async () => {
  // 4,055,712 and 369,356 of the adapters, 11,840 of the first convolution.
  const { trained, state, programs, host } = await planMemory('osediff-face', paper);
  assert.equal([trained, host], [4_436_908, 0]);
  assert.ok(state + programs < 16e9, `${state + programs} bytes`);
  // Both moments of nearly all weights are away, but for one pair of each shape.
  const away = await planMemory('osediff-face', { ...paper, offload: true });
  assert.ok(away.host > 4e9 && away.state < state - 3.5e9, JSON.stringify(away));
});

test.run();
