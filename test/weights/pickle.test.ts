// What Python pickles, in the protocols that PyTorch writes, and what it becomes here.
import { spawnSync } from 'node:child_process';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ReflError } from '../../lib/errors.ts';
import { Global, Instance, readPickle } from '../../lib/weights/pickle.ts';

const context = {
  where: 'here',
  global: (name: string): Global => {
    if (name === 'collections.OrderedDict') return new Global(name, () => new Map());
    if (['builtins.set', '__builtin__.set'].includes(name)) return new Global(name, ([items]) => items);
    if (['builtins.bytearray', '__builtin__.bytearray'].includes(name))
      return new Global(name, () => new Instance(name));
    if (name === '_codecs.encode') return new Global(name, ([text]) => Buffer.from(text as string, 'latin1'));
    if (['builtins.bytes', '__builtin__.bytes'].includes(name)) return new Global(name, () => Buffer.alloc(0));
    throw new ReflError('ERR_WEIGHTS', `here: it asks for ${name}`);
  },
  persistent: (id: unknown): unknown => ({ id }),
};

const shared = [1];

/** Expressions of Python, and their values here. */
const values: readonly (readonly [string, unknown])[] = [
  ['None', null],
  ['[True, False]', [true, false]],
  [
    '[0, 1, -1, 127, 255, 256, -32768, 65535, 65536, 2**31 - 1, -2**31]',
    [0, 1, -1, 127, 255, 256, -32768, 65535, 65536, 2 ** 31 - 1, -(2 ** 31)],
  ],
  ['[2**31, 2**40, -2**40, 2**53 - 1, -2**53 + 1]', [2 ** 31, 2 ** 40, -(2 ** 40), 2 ** 53 - 1, -(2 ** 53) + 1]],
  ['[2**53, -2**63, 2**63, 0x1950a86a20f9469cfc6c]', [2n ** 53n, -(2n ** 63n), 2n ** 63n, 0x1950a86a20f9469cfc6cn]],
  [
    '[0.5, -1e300, 1e-7, float("inf"), -float("inf")]',
    [0.5, -1e300, 1e-7, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY],
  ],
  ['["", "a", "line", "x" * 300]', ['', 'a', 'line', 'x'.repeat(300)]],
  ['b"\\x00\\xff"', Buffer.from([0, 255])],
  ['b""', Buffer.alloc(0)],
  ['[(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)]', [[], [1], [1, 2], [1, 2, 3], [1, 2, 3, 4]]],
  ['[[], [1, [2, [3]]]]', [[], [1, [2, [3]]]]],
  ['{}', new Map()],
  [
    '{"a": 1, 2: {"b": (None,)}}',
    new Map<unknown, unknown>([
      ['a', 1],
      [2, new Map([['b', [null]]])],
    ]),
  ],
  ['{7}', [7]],
  [
    'collections.OrderedDict([("z", 1), ("a", 2)])',
    new Map([
      ['z', 1],
      ['a', 2],
    ]),
  ],
  ['list(range(3000))', Array.from({ length: 3000 }, (_, i) => i)],
  ['{i: -i for i in range(1, 2500)}', new Map(Array.from({ length: 2499 }, (_, i) => [i + 1, -i - 1]))],
  ['(lambda x: [x, x, {"k": x}])([1])', [shared, shared, new Map([['k', shared]])]],
];

const script = `
import collections, pickle, sys
for line in sys.stdin:
    value = eval(line)
    print(*(pickle.dumps(value, protocol).hex() for protocol in range(2, 6)))
`;
const python = spawnSync('/usr/bin/python3', ['-c', script], {
  input: values.map(([expression]) => expression).join('\n'),
  encoding: 'utf8',
});
const wherePython = python.status === 0 ? test : test.skip;

wherePython('values of every kind, in the protocols 2 to 5', () => {
  const lines = python.stdout.trim().split('\n');
  assert.is(lines.length, values.length);
  for (const [i, line] of lines.entries()) {
    const [expression, expected] = values[i];
    const pickles = line.split(' ').map((hex) => Buffer.from(hex, 'hex'));
    assert.is(pickles.length, 4);
    for (const [protocol, bytes] of pickles.entries()) {
      const { value, end } = readPickle(bytes, 0, context);
      assert.equal(value, expected, `${expression} in protocol ${protocol + 2}`);
      assert.is(end, bytes.length);
      // No beginning of it is a pickle.
      assert.throws(() => readPickle(bytes.subarray(0, -1), 0, context), /ends too early/);
    }
  }
});

wherePython('what is shared stays shared, and what follows a pickle is left', () => {
  const line = python.stdout.trim().split('\n').at(-1)!;
  for (const hex of line.split(' ')) {
    const bytes = Buffer.from(hex, 'hex');
    const two = Buffer.concat([Buffer.from('xx'), bytes, bytes]);
    const first = readPickle(two, 2, context);
    const [a, b, map] = first.value as [unknown, unknown, Map<string, unknown>];
    assert.ok(a === b && map.get('k') === a);
    assert.equal(readPickle(two, first.end, context).value, first.value);
  }
});

test('persistent ids and objects of unknown state', () => {
  const read = (text: string): unknown => readPickle(Buffer.from(text, 'latin1'), 0, context).value;
  assert.equal(read('K\x07Q.'), { id: 7 });
  assert.equal(read('I-9007199254740993\n.'), -9007199254740993n);
  const made = read('cbuiltins\nbytearray\n)R}U\x01aK\x01sb.') as Instance;
  assert.instance(made, Instance);
  assert.equal(made.state, new Map([['a', 1]]));
  // Items that are set on it go nowhere.
  assert.instance(read('cbuiltins\nbytearray\n)RU\x01aK\x01s.'), Instance);
});

test.run();
