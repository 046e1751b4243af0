// timeout: 300 s
// Gradients of the last steps beside those of the whole way, at a smaller size than the command's.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { runTruncation, truncationSettings } from '../../lib/experiments/truncation.ts';
import { temporaryFolder } from '../restore/support.ts';

test('the whole way agrees with itself, a part of it partly, and memory grows with the steps', async () => {
  const out = temporaryFolder();
  const photographs = fileURLToPath(new URL('../../samples', import.meta.url));
  const small = { ...truncationSettings, walk: 3, traced: [1], steps: 2, lookEvery: 1, looks: 1, compared: 2 };
  const workplace = { photographs, out, device: 'cpu', threads: 1 };
  const { agreements, runs } = await runTruncation(small, workplace);
  const [one, whole] = agreements;
  assert.equal([one.traced, whole.traced], [1, 3]);
  assert.ok(Math.abs(whole.cosine - 1) < 1e-5 && Math.abs(whole.length - 1) < 1e-5, JSON.stringify(whole));
  assert.ok(Math.abs(one.cosine) < 0.9999 && one.length > 0, JSON.stringify(one));
  assert.ok(whole.planned > one.planned && one.seconds > 0);
  const [{ looks }] = runs;
  assert.equal(
    looks.map(({ step }) => step),
    [0, 1, 2],
  );
  assert.is.not(looks[0].observation.reward, looks[2].observation.reward);
  assert.match(await readFile(join(out, 'truncation.html'), 'utf8'), /<svg[\s\S]+data:image\/png/);

  const again = await runTruncation(small, workplace);
  assert.equal(again.runs, runs);
  const agreed = (all: typeof agreements) => all.map(({ traced, cosine, length }) => ({ traced, cosine, length }));
  assert.equal(agreed(again.agreements), agreed(agreements));
});

test.run();
