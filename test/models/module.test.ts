import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { input, type Tensor } from '../../lib/graph/tensor.ts';
import { Conv2d, Embedding, GroupNorm, LayerNorm, Linear } from '../../lib/nn/layers.ts';
import { addLora, type LoraLayer } from '../../lib/nn/lora.ts';
import { Buffer, type Layer, Module, withDType } from '../../lib/nn/module.ts';

class Inner extends Module {
  readonly norm = new LayerNorm(4);
  readonly layers: Layer[] = [new Linear(4, 3), new Linear(3, 2, { bias: false })];
  readonly #hidden = new Linear(1, 1);

  forward(x: Tensor): Tensor {
    return this.trace(() => this.layers.reduce((h, layer) => layer.forward(h), this.norm.forward(x)));
  }

  get hidden(): Linear {
    return this.#hidden;
  }
}

class Outer extends Module {
  readonly config = { sizes: [1, 2, 3], nested: { flag: true } };
  readonly blocks = { 0: new Inner(), 2: new Inner() };
  readonly table = new Embedding(5, 4);
  readonly counts = new Buffer([2], 'i32', () => Int32Array.of(1, 2));

  forward(x: Tensor): Tensor {
    return this.trace(() => this.blocks[2].forward(x));
  }
}

const keys = (module: Module): string[] => [...module.namedParameters().keys()];

test('keys follow properties, arrays and numbered objects', () => {
  const inner = ['norm.weight', 'norm.bias', 'layers.0.weight', 'layers.0.bias', 'layers.1.weight'];
  const expected = [...inner.map((key) => `blocks.0.${key}`), ...inner.map((key) => `blocks.2.${key}`), 'table.weight'];
  const outer = new Outer();
  assert.equal(keys(outer), expected);
  assert.equal([...outer.namedBuffers().keys()], ['counts']);
  assert.equal(keys(outer.blocks[2]), inner);
  for (const [key, parameter] of outer.namedParameters()) assert.is(parameter.name, key);
  assert.is(outer.parameterCount, 2 * (8 + 15 + 6) + 20);
});

test('names are those of the outermost module, whichever was asked first', () => {
  const outer = new Outer();
  outer.blocks[0].namedParameters();
  outer.namedParameters();
  outer.blocks[0].namedParameters();
  assert.is(outer.blocks[0].norm.weight.name, 'blocks.0.norm.weight');
});

test('errors and nodes name the layer', () => {
  const outer = new Outer();
  assert.is(outer.forward(input('x', [2, 4])).node.layer, 'blocks.2.layers.1');
  assert.throws(
    () => outer.forward(input('x', [2, 5])),
    /^blocks\.2\.norm: layerNorm\(f32\[2,5\], f32\[4\], f32\[4\]\)/,
  );
});

test('withDType sets the dtype of the parameters built inside, and only there', () => {
  const wide = withDType('f64', () => new Linear(2, 2));
  assert.is(wide.weight.value.dtype, 'f64');
  assert.is(new Linear(2, 2).weight.value.dtype, 'f32');
  assert.throws(() =>
    withDType('f64', () => {
      throw new Error('thrown inside');
    }),
  );
  assert.is(new Linear(2, 2).weight.value.dtype, 'f32');
});

test('train marks everything below', () => {
  const outer = new Outer().train(false);
  outer.blocks[2].train(true);
  const trained = [...outer.namedParameters()].filter(([, { trainable }]) => trainable).map(([key]) => key);
  assert.equal(
    trained,
    keys(outer).filter((key) => key.startsWith('blocks.2.')),
  );
});

test('group norm refuses channels that do not divide', () => {
  assert.throws(() => new GroupNorm(32, 48, 1e-5), /48 channels do not split into 32 groups/);
});

class Pair extends Module {
  readonly conv: Layer = new Conv2d(3, 6, 3, { stride: 2, padding: [0, 0, 1, 1] });
  readonly rest: Layer[] = [new Linear(6, 5, { bias: false }), new Linear(5, 4)];

  forward(x: Tensor): Tensor {
    return this.trace(() => this.rest.reduce((h, layer) => layer.forward(h), this.conv.forward(x)));
  }
}

test('adapters wrap what they target, stack, and keep names and shapes', () => {
  const pair = new Pair();
  assert.is(pair.rest[0].namedParameters().size, 1);
  assert.equal(
    addLora(pair, { adapter: 'a', rank: 2 }, (path) => path !== 'rest.1'),
    ['conv', 'rest.0'],
  );
  assert.equal(
    addLora(pair, { adapter: 'b', rank: 1, alpha: 3 }, (path) => path === 'conv'),
    ['conv'],
  );
  const shapes = Object.fromEntries([...pair.namedParameters()].map(([key, { value }]) => [key, value.shape.join()]));
  assert.equal(shapes, {
    'conv.base_layer.weight': '6,3,3,3',
    'conv.base_layer.bias': '6',
    'conv.lora_A.a.weight': '2,3,3,3',
    'conv.lora_A.b.weight': '1,3,3,3',
    'conv.lora_B.a.weight': '6,2,1,1',
    'conv.lora_B.b.weight': '6,1,1,1',
    'rest.0.base_layer.weight': '5,6',
    'rest.0.lora_A.a.weight': '2,6',
    'rest.0.lora_B.a.weight': '5,2',
    'rest.1.weight': '4,5',
    'rest.1.bias': '4',
  });
  assert.equal(pair.forward(input('x', [1, 8, 8, 3])).shape, [1, 4, 4, 4]);
  const conv = pair.conv as LoraLayer;
  assert.equal(conv.scaling, { a: 4, b: 3 });
  assert.equal(conv.mergedWeight().shape, [6, 3, 3, 3]);
});

test('parameters are replaced by others of their shapes, which several modules may share', () => {
  const [pair, other] = [new Pair(), new Pair()];
  const own = other.namedParameters();
  pair.replaceParameters((key, parameter) => (key.startsWith('rest.') ? own.get(key)! : parameter));
  const keys = [...pair.namedParameters()].filter(([key, parameter]) => parameter === own.get(key)).map(([key]) => key);
  assert.equal(keys, ['rest.0.weight', 'rest.1.weight', 'rest.1.bias']);
  const [first] = own.values();
  assert.throws(
    () => pair.replaceParameters((key, parameter) => (key === 'rest.1.bias' ? first : parameter)),
    (error: Error & { code: string }) => error.code === 'ERR_SHAPE' && /^rest\.1\.bias is /.test(error.message),
  );
});

test.run();
