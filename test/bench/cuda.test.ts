// timeout: 600 s
// The GPU bench over the emulator: every shape becomes a request, and the program that answers runs operators as programs do.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { requestOf } from '../../bench/cuda/request.ts';
import { type Shape, shapes } from '../../bench/cuda/shapes.ts';
import { markdown } from '../../bench/cuda/table.ts';
import { Peer, Refused } from '../../bench/peers.ts';
import { type ConvShape, conv, dense } from '../../lib/bench/ops.ts';
import { groupNorm } from '../../lib/graph/ops/norm.ts';
import { parameterLeaf, type Tensor } from '../../lib/graph/tensor.ts';
import { buildBench } from '../simt/build.ts';

test('every shape is one node, with the bytes of its type', () => {
  assert.is(new Set(shapes.map(({ name }) => name)).size, shapes.length);
  for (const shape of shapes) {
    const [full, half] = [requestOf(shape, 'f32'), requestOf(shape, 'bf16')];
    assert.ok(half.bytes > 0.49 * full.bytes && half.bytes < 0.75 * full.bytes, shape.name);
    assert.ok(
      half.words.some((word) => /^<!?bf16:/.test(word)),
      shape.name,
    );
  }
  const [first] = shapes;
  assert.equal(requestOf(first, 'bf16'), {
    words: ['<bf16:4096x4096', '<!bf16:4096x4096', '<!bf16:4096', '>bf16:4096x4096', '@', '@'],
    bytes: 2 * (3 * 4096 * 4096 + 4096),
  });
  assert.is(requestOf(first, 'tf32').bytes, requestOf(first, 'f32').bytes);
});

const leaves = (...sizes: number[][]): Tensor[] => sizes.map((size) => parameterLeaf(size, 'f32'));
const small = (op: string, results: Tensor[], frozen: Tensor[] = []): Shape => ({
  ...{ name: op, op, family: 'conv', flops: 0, peer: '' },
  ...{ results, frozen: new Set(frozen) },
});

const opened: Peer[] = [];
test.after(async () => {
  for (const peer of opened) await peer.close();
});
async function open(environment: NodeJS.ProcessEnv = {}): Promise<Peer> {
  const peer = new Peer('bench/cuda', await buildBench(), [], { ...process.env, ...environment });
  opened.push(peer);
  return peer;
}

test('the program binds and runs operators', async () => {
  const program = await open();
  const ask = (shape: Shape, dtype: string) => program.ask('operator', shape.op, 2, ...requestOf(shape, dtype).words);
  assert.equal(await program.ask('device'), { name: 'emulated device', sm: 90 });
  assert.is((await program.ask('copy', 4096, 2)).seconds, 1e-3);

  const pixels: ConvShape = { size: 5, inputs: 3, outputs: 8 };
  for (const [pass, op] of [
    ['forward', 'conv2d'],
    ['input', 'conv2dGradInput'],
    ['weight', 'conv2dGradWeight'],
  ] as const) {
    const bench = conv(pass, pass === 'weight' ? 'trainable' : 'frozen', pixels);
    const operands = bench.operands.map(({ shape }) => parameterLeaf(shape, 'f32'));
    const frozen = operands.filter((_, i) => bench.operands[i].frozen);
    for (const dtype of ['f32', 'tf32', 'bf16', 'f16']) {
      assert.is((await ask(small(op, [bench.build(...operands)], frozen), dtype)).seconds, 1e-3, `${op} ${dtype}`);
    }
  }
  const [x, w, bias] = leaves([3, 24], [16, 24], [16]);
  assert.is(
    (await ask(small('linear', [dense('forward', 'frozen', 3, 24, 16).build(x, w, bias)]), 'bf16')).seconds,
    1e-3,
  );
  const hopper = await open({ REFL_SM90: '1' });
  const product = requestOf(small('linear', [dense('forward', 'frozen', 3, 24, 16).build(x, w, bias)]), 'bf16');
  assert.is((await hopper.ask('operator', 'linear', 2, ...product.words)).seconds, 1e-3);
  const [image, gamma, beta] = leaves([1, 4, 4, 32], [32], [32]);
  const normed = groupNorm(image, gamma, beta, { groups: 4, eps: 1e-5, silu: true });
  assert.is((await ask(small('groupNorm', [normed]), 'f16')).seconds, 1e-3);

  for (const request of ['operator nothing 1', 'operator conv2d 1 <f32:1x2', 'operator neg 1 <f64:2 >f64:2', 'what']) {
    await program.ask(request).then(
      () => assert.unreachable(request),
      (error) => assert.instance(error, Refused, request),
    );
  }
});

test('the table tells what was measured from what failed', () => {
  const text = markdown([
    { bench: 'device', name: 'A chip', sm: 90, date: '2026-11-26T00:00:00Z', torch: '2.11', copy: 3000 },
    {
      ...{ bench: 'kernel', name: 'linear 1x2x3', family: 'linear', op: 'linear', dtype: 'bf16', flops: 4e9, bytes: 1 },
      ...{ ours: 1e-5, peers: { cuBLAS: 2e-5 }, problems: [] },
    },
    {
      ...{ bench: 'kernel', name: 'add 4x4', family: 'memory', op: 'add', dtype: 'bf16', flops: 0, bytes: 3e7 },
      ...{ ours: undefined, peers: undefined, problems: ['no memory'] },
    },
  ]);
  assert.match(text, 'A chip (sm_90), 2026-11-26; copies: 3000 GB/s; PyTorch 2.11.');
  assert.match(text, '| linear 1x2x3 | bf16 | 10.0 us | 400 | cuBLAS 20.0 us | 2.00 |');
  assert.match(text, '| add 4x4 | bf16 | failed |');
  assert.match(text, '- add 4x4: no memory');
});

test.run();
