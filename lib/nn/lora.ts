import { add, affine } from '../graph/ops/elementwise.ts';
import { reshape } from '../graph/ops/layout.ts';
import { matmul } from '../graph/ops/matmul.ts';
import type { Tensor } from '../graph/tensor.ts';
import { Conv2d, Linear } from './layers.ts';
import { Layer, type Module, type Parameter } from './module.ts';

export interface LoraOptions {
  /** The adapter's name: the last part but one of its keys. */
  adapter: string;
  rank: number;
  /** The adapter's output is scaled by alpha / rank. peft's default, which official OSEDiff weights rely on, is 8. */
  alpha?: number;
}

/**
 * A convolution or linear layer with low-rank adapters beside it: y = base(x) + sum of alpha/rank * B(A(x)).
 * A has the base's kernel, stride and padding and `rank` outputs; B is 1x1. Keys are peft's:
 * `base_layer.weight`, `lora_A.<adapter>.weight`, `lora_B.<adapter>.weight`.
 */
export class LoraLayer extends Layer {
  readonly base_layer: Conv2d | Linear;
  readonly lora_A: Record<string, Conv2d | Linear> = {};
  readonly lora_B: Record<string, Conv2d | Linear> = {};
  readonly scaling: Record<string, number> = {};

  constructor(base: Conv2d | Linear) {
    super();
    this.base_layer = base;
  }

  /** Adds an adapter that changes nothing yet: A is normal with deviation 1/rank, B is zero. */
  addAdapter({ adapter, rank, alpha = 8 }: LoraOptions): void {
    const base = this.base_layer;
    const [outputs, inputs, height, width] = base.weight.value.shape;
    const down = { bias: false, init: { kind: 'normal', std: 1 / rank } } as const;
    const up = { bias: false, init: 'zeros' } as const;
    if (base instanceof Conv2d) {
      const { stride, padding } = base;
      this.lora_A[adapter] = new Conv2d(inputs, rank, [height, width], { ...down, stride, padding });
      this.lora_B[adapter] = new Conv2d(rank, outputs, 1, up);
    } else {
      this.lora_A[adapter] = new Linear(inputs, rank, down);
      this.lora_B[adapter] = new Linear(rank, outputs, up);
    }
    this.scaling[adapter] = alpha / rank;
  }

  forward(x: Tensor): Tensor {
    return this.trace(() => {
      let y = this.base_layer.forward(x);
      for (const [adapter, scale] of Object.entries(this.scaling)) {
        y = add(y, affine(this.lora_B[adapter].forward(this.lora_A[adapter].forward(x)), scale));
      }
      return y;
    });
  }

  /** The base weight, or another in its place, with all adapters folded in: of its shape, and exact up to rounding. */
  mergedWeight(base = this.base_layer.weight.value): Tensor {
    return this.trace(() => {
      let merged = base;
      for (const [adapter, scale] of Object.entries(this.scaling)) {
        const a = this.lora_A[adapter].weight.value;
        const b = this.lora_B[adapter].weight.value;
        const delta = matmul(reshape(b, [b.shape[0], b.shape[1]]), reshape(a, [a.shape[0], -1]));
        merged = add(merged, affine(reshape(delta, merged.shape), scale));
      }
      return merged;
    });
  }
}

/**
 * Gives an adapter to every convolution and linear layer of `root` whose path `target` accepts, and returns their
 * paths. What was trainable before stays so: call `root.train(false)` first to train adapters alone.
 */
export function addLora(root: Module, options: LoraOptions, target: (path: string) => boolean): string[] {
  const adapted: string[] = [];
  for (const [path, layer] of root.namedModules()) {
    const wraps = layer instanceof Conv2d || layer instanceof Linear;
    if (!(wraps || layer instanceof LoraLayer) || insideAdapter.test(path) || !target(path)) continue;
    const lora = layer instanceof LoraLayer ? layer : new LoraLayer(layer);
    lora.addAdapter(options);
    if (wraps) replace(root, path, lora);
    adapted.push(path);
  }
  return adapted;
}

/**
 * The weights of `plain` that differ from those of `adapted`, the same network with adapters: their adapters folded in, as
 * values of the parameters of `adapted`.
 */
export function folded(plain: Module, adapted: Module): Map<Parameter, Tensor> {
  const weights = plain.namedParameters();
  const merged = new Map<Parameter, Tensor>();
  for (const [path, layer] of adapted.namedModules()) {
    if (layer instanceof LoraLayer) merged.set(weights.get(`${path}.weight`)!, layer.mergedWeight());
  }
  return merged;
}

const insideAdapter = /(^|\.)(base_layer|lora_[AB]\.[^.]+)$/;

/** Puts `layer` where `path` leads from `root`, through modules, arrays and plain objects. */
function replace(root: Module, path: string, layer: Layer): void {
  const keys = path.split('.');
  const last = keys.pop()!;
  let owner = root as unknown as Record<string, unknown>;
  for (const key of keys) owner = owner[key] as Record<string, unknown>;
  owner[last] = layer;
}
