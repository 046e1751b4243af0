import type { TypedArray } from '../graph/dtype.ts';
import { affine, full } from '../graph/ops/elementwise.ts';
import { randomNormal, randomUniform } from '../graph/ops/random.ts';
import { constant, type Tensor } from '../graph/tensor.ts';
import type { Module, Parameter } from './module.ts';

/** What this needs of lib/runtime's Device and Parameters, which models do not know. */
interface Computes<P> {
  compile(
    graph: { outputs: Record<string, Tensor> },
    options: { parameters: P },
  ): Promise<{ run(): Promise<Record<string, TypedArray>>; dispose(): void }>;
}
interface Holds {
  has(leaf: Tensor): boolean;
  add(leaf: Tensor, options: { frozen: boolean; data: TypedArray }): void;
}

/** Philox stream of initial values ("init"): noise drawn with the same seed has streams of its own. */
const stream = 0x696e6974;
/** Bytes of initial values computed by one program, so that a large model needs little memory beyond its own. */
const batchBytes = 64 << 20;

/**
 * Adds every parameter of `module` to `parameters` with the values its initialiser describes, made on `device`.
 * Parameter number i draws from offset i of the seed's stream, so that equal seeds give equal bits on every backend.
 * Parameters that are not trainable become frozen buffers; those that `parameters` already holds are left alone.
 *
 * @param given values for some parameters in place of their initialisers', of what `parameters` already holds
 */
export async function initialize<P extends Holds>(
  device: Computes<NoInfer<P>>,
  parameters: P,
  module: Module,
  seed: bigint,
  given: ReadonlyMap<Parameter, Tensor> = new Map(),
): Promise<void> {
  let batch: [Parameter, Tensor][] = [];
  let bytes = 0;
  const flush = async (): Promise<void> => {
    const outputs = Object.fromEntries(batch.map(([{ name }, value]) => [name, value]));
    const program = await device.compile({ outputs }, { parameters });
    const values = await program.run();
    program.dispose();
    for (const [{ name, value, trainable }] of batch) parameters.add(value, { frozen: !trainable, data: values[name] });
    batch = [];
    bytes = 0;
  };
  let offset = 0;
  for (const parameter of module.namedParameters().values()) {
    const value = given.get(parameter) ?? initial(parameter, seed, offset);
    offset++;
    if (parameters.has(parameter.value)) continue;
    batch.push([parameter, value]);
    bytes += value.size * 4;
    if (bytes >= batchBytes) await flush();
  }
  if (batch.length) await flush();
}

function initial({ value: { shape, dtype }, init }: Parameter, seed: bigint, offset: number): Tensor {
  if (init === 'zeros') return full(shape, 0, dtype);
  if (init === 'ones') return full(shape, 1, dtype);
  if (init.kind === 'constant') return full(shape, init.value, dtype);
  const words = Int32Array.of(Number(BigInt.asIntN(32, seed)), Number(BigInt.asIntN(32, seed >> 32n)), stream, offset);
  const state = constant(words, [4], 'i32');
  if (init.kind === 'normal') return affine(randomNormal(state, shape, dtype), init.std);
  return affine(randomUniform(state, shape, dtype), 2 * init.bound, -init.bound);
}
