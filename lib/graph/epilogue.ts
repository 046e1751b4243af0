import { isHalf } from './dtype.ts';
import type { Graph } from './program.ts';
import { inputName, opTable } from './table.ts';
import { asLayer, emit1, Node, type Shape, sameShape, type Tensor } from './tensor.ts';
import { rebuilt, Usage } from './usage.ts';

/** What native code holds: cuda/gemm/epilogue.h has the same limit. */
const MOST_STEPS = 4;

const places = Object.keys(opTable);

/** A product that finishes its result, `y`. */
interface Finished {
  readonly product: Node;
  readonly code: number[];
  readonly numbers: number[];
  readonly operands: Tensor[];
  y: Tensor;
}

/**
 * The graph with what follows a product made part of it: operators of one value (activations and their gradients, scales),
 * those that take a second one from a tensor (residuals, a shift of each image), and last a cast to float32, which gradients
 * of convolutions' weights take too (`widens` in ops.json). The product then
 * writes its result once, finished, with the bits that separate nodes would give, in 16 bits too. An operator joins where
 * nobody else reads what it reads of the product. Where its other operand is computed later, the product has to wait for it.
 * Attributes of a finished product are its own and `code`: pairs of an operator, by its place in ops.json, and the number
 * with which its attributes in `numbers` begin; operands follow the product's own inputs, in the order in which they are
 * taken. A pure function: `graph` stays as it is.
 */
export function finishProducts(graph: Graph): Graph {
  const usage = new Usage(graph);
  /** By the node in whose place they run. */
  const found = new Map<Node, Finished>();
  // The latest first: where an operator reads two products, it is the second that need not wait.
  for (const node of [...usage.nodes].reverse()) {
    if (takesSteps(node) || opTable[node.op].widens) addFinished(node, usage, found);
  }
  return rebuilt(graph, usage, (node, now) => {
    const finished = found.get(node);
    if (!finished) return undefined;
    const { product, code, numbers, operands, y } = finished;
    const { shape } = product.outputs[0];
    const made = asLayer(product.layer, () => {
      const inputs = [...product.inputs, ...operands].map((t) => t && now(t));
      const attrs = code.length > 0 ? { ...product.attrs, code, numbers } : product.attrs;
      const [result] = new Node(product.op, inputs, attrs, [{ shape, dtype: y.dtype }]).outputs;
      return sameShape(shape, y.shape) ? result : emit1('reshape', [result], { shape: y.shape });
    });
    return [y, made];
  });
}

const takesSteps = ({ op }: Node): boolean => !!opTable[op].group?.includes('operand');

function addFinished(product: Node, usage: Usage, found: Map<Node, Finished>): void {
  const [result] = product.outputs;
  const finished: Finished = { product, code: [], numbers: [], operands: [], y: result };
  const inputs = product.inputs.filter((t): t is Tensor => !!t);
  const isLater = (t: Tensor): boolean => !t.node.leaf && usage.stepOf(t) > usage.stepOf(result);
  const passed: Node[] = [];
  let place = product;
  let taken = 0;
  for (let t = result; ; ) {
    const node = usage.soleReader(t);
    if (!node || found.has(node) || usage.absorbed.has(node)) break;
    const waits = [...finished.operands, ...node.inputs].some((it) => it && it !== t && isLater(it));
    if (waits && !usage.mayWait(result, [...inputs, ...finished.operands], node, passed)) break;
    if (node.op !== 'reshape' && !addStep(finished, node, t, result)) break;
    passed.push(node);
    t = node.outputs[0];
    if (node.op === 'reshape') continue;
    finished.y = t;
    place = waits ? node : product;
    taken = passed.length;
  }
  if (taken === 0) return;
  for (const node of [product, ...passed.slice(0, taken)]) usage.absorbed.add(node);
  usage.absorbed.delete(place);
  found.set(place, finished);
}

/** Adds `node`, which reads the value `t` of a product's `result`; false where the product cannot do it. */
function addStep({ product, code, numbers, operands }: Finished, node: Node, t: Tensor, result: Tensor): boolean {
  const row = opTable[node.op];
  const y = node.outputs[0];
  if (t.dtype !== result.dtype) return false;
  if (node.op === 'cast') return isHalf(t.dtype) && y.dtype === 'f32';
  if (!takesSteps(product)) return false;
  const at = node.inputs.indexOf(t);
  if (!row.finishes?.includes(inputName(row, at)) || code.length === 2 * MOST_STEPS || !sameShape(t.shape, y.shape))
    return false;
  if (node.inputs.length === 2) {
    const other = node.inputs[1 - at]!;
    if (!spreads(other.shape, t.shape, result.shape.at(-1)!)) return false;
    operands.push(other);
  }
  code.push(places.indexOf(node.op), numbers.length);
  numbers.push(...Object.keys(row.attrs).map((name) => Number(node.attrs[name])));
  return true;
}

/** Whether an operand is as large as the result, or has one row of its `columns` for equally many rows, one after the other. */
function spreads(operand: Shape, whole: Shape, columns: number): boolean {
  const full = [...new Array<number>(whole.length - operand.length).fill(1), ...operand];
  if (sameShape(full, whole)) return true;
  const first = full.findIndex((extent, i) => extent !== whole[i]);
  return full.at(-1) === columns && whole.at(-1) === columns && full.slice(first, -1).every((extent) => extent === 1);
}
