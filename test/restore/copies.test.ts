// What a large picture costs the event loop: every copy to a device and back is made while it waits, so each must be small.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { lower } from '../../lib/graph/program.ts';
import { input } from '../../lib/graph/tensor.ts';
import { ControlLDM, diffbir } from '../../lib/models/diffbir.ts';
import { OSEDiff } from '../../lib/models/osediff.ts';
import { SwinIR } from '../../lib/models/swinir.ts';
import { DiffBIRModel, diffbirVersions } from '../../lib/restore/diffbir.ts';
import { OSEDiffModel } from '../../lib/restore/osediff.ts';
import { continued, planeOf } from '../../lib/restore/plane.ts';
import { Stages } from '../../lib/restore/stages.ts';
import { openDevice } from '../../lib/runtime/index.ts';
import { copiedBytes } from '../support/runtime.ts';
import { tinyDiffBIR } from './latent_support.ts';
import { failure } from './support.ts';

test('a large picture goes to the device and comes back in small parts: none holds the event loop', async () => {
  using device = await openDevice('null');
  const [width, height] = [1490, 1030];
  const image = { width, height, data: new Uint8Array(width * height * 3) };
  for (const name of ['osediff', 'diffbir']) {
    const stages = new Stages(device, 0);
    const options = { name, size: 256, stages };
    const [ose, ldm, stage1] = [new OSEDiff(tinyDiffBIR), new ControlLDM(tinyDiffBIR), new SwinIR(tinyDiffBIR.stage1)];
    for (const network of name === 'osediff' ? [ose] : [ldm, stage1]) {
      for (const { value } of network.namedParameters().values()) stages.parameters.add(value, { frozen: true });
    }
    const model =
      name === 'osediff'
        ? new OSEDiffModel(options, ose, true)
        : new DiffBIRModel(options, diffbirVersions.v1, stage1, ldm);
    const parts = await copiedBytes(async () => {
      const more = { batch: 1, seed: 0, ...(name === 'diffbir' && { steps: 1 }) };
      assert.match((await failure(model.restore([image], more))).message, /not finite/);
    });
    // The picture is 18 MB in float32, and what the attention works on that must see all positions at once 12.
    assert.ok(parts.length > 200 && Math.max(...parts) <= 2 ** 22, `${name}: ${Math.max(...parts)} bytes at once`);
    model.dispose();
  }
});

test('the first stage needs no large tables to be planned for a large picture', () => {
  const image = input('image', [1, 4096, 4096, 3]);
  const { persistent } = lower({ outputs: { y: new SwinIR(diffbir.stage1).forward(image) } });
  const tables = persistent.flatMap(({ data }) => data?.byteLength ?? []);
  assert.ok(tables.length > 2 && Math.max(...tables) < 1e5, `${tables}`);
});

test('a plane that is continued reads as if its image had been', async () => {
  const image = Float32Array.from({ length: 2 * 3 * 2 * 2 }, (_, i) => i + 1);
  for (const mode of ['zero', 'replicate'] as const) {
    const plane = continued(planeOf(image, [2, 3, 2, 2]), [2, 5, 6, 2], mode);
    const pixel = (n: number, y: number, x: number): number[] => {
      const outside = y > 2 || x > 1;
      const at = ((n * 3 + Math.min(y, 2)) * 2 + Math.min(x, 1)) * 2;
      return outside && mode === 'zero' ? [0, 0] : [...image.subarray(at, at + 2)];
    };
    for (let top = 0; top < 5; top++) {
      for (let left = 0; left < 6; left++) {
        for (let height = 1; top + height <= 5; height++) {
          for (let width = 1; left + width <= 6; width++) {
            const values = await plane.read({ top, left, height, width });
            const expected = [0, 1].flatMap((n) =>
              Array.from({ length: height * width }, (_, i) =>
                pixel(n, top + Math.floor(i / width), left + (i % width)),
              ).flat(),
            );
            assert.equal([...values], expected, `${mode} ${[top, left, height, width]}`);
          }
        }
      }
    }
  }
});

test.run();
