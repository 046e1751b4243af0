// Mutations of a kernel's source: each barrier, fence and wait taken out, each wait made one group shorter, each comparison
// moved by one and, where it guards something, taken to be true (equality too), each min() reduced to either argument. All of
// them go into one copy of the source, behind a number that the driver sets, so that one build serves them all.

export interface Mutation {
  /** In the source, from 1. */
  line: number;
  /** What was changed, as one would write it. */
  change: string;
}

export interface Mutated {
  source: string;
  mutations: Mutation[];
}

/** Wrappers that order or wait and return nothing. */
const waits =
  /\b(__syncthreads|__syncwarp|__threadfence|barSync|barArrive|cpAsyncCommit|cpAsyncWait|mbarrierInitFence|mbarrierWait|mbarrierArrive|mbarrierArriveExpect|fenceProxyAsync|bulkCommit|bulkWaitRead|wgmmaFence|wgmmaCommit|wgmmaWait)\b(<([^<>;]*)>)?\(/g;

const prelude = 'extern int simtMutation; namespace { inline bool simtIs(int n) { return simtMutation == n; } }\n';

/** The source with comments and strings blanked, so that places in it are places in the original. */
function code(text: string): string {
  return text.replace(/\/\/[^\n]*|\/\*[\s\S]*?\*\/|"(?:[^"\\\n]|\\.)*"/g, (it) => it.replace(/[^\n]/g, ' '));
}

/** The index after the bracket that closes the one at `open`. */
function closing(text: string, open: number): number {
  const pairs: Record<string, string> = { '(': ')', '{': '}', '[': ']' };
  let depth = 0;
  for (let i = open; i < text.length; i++) {
    if (pairs[text[i]]) depth++;
    else if (')}]'.includes(text[i]) && --depth === 0) return i + 1;
  }
  return text.length;
}

/** Ranges of the bodies of kernels and device functions; host code is left alone. */
function bodies(text: string): [number, number][] {
  const found: [number, number][] = [];
  for (const { index } of text.matchAll(/\b(__global__|__device__|SIMT_DEVICE)\b/g)) {
    const brace = text.indexOf('{', index);
    const end = text.indexOf(';', index);
    if (brace < 0 || (end >= 0 && end < brace)) continue;
    if (found.length && brace < found[found.length - 1][1]) continue;
    found.push([brace, closing(text, brace)]);
  }
  return found;
}

/** The ends of the operands of a comparison at [from, to). */
function operands(text: string, from: number, to: number): [number, number] {
  let start = from;
  for (let depth = 0; start > 0; start--) {
    const c = text[start - 1];
    if (depth === 0 && text.slice(start - 7, start) === 'return ') break;
    if (')]}'.includes(c)) depth++;
    else if ('([{'.includes(c) && depth-- === 0) break;
    else if (depth === 0 && (/[;,?&|!]/.test(c) || (c === ':' && text[start - 2] !== ':' && text[start] !== ':')))
      break;
    else if (depth === 0 && c === '=' && !'<>='.includes(text[start - 2])) break;
  }
  let end = to;
  for (let depth = 0; end < text.length; end++) {
    const c = text[end];
    if ('([{'.includes(c)) depth++;
    else if (')]}'.includes(c) && depth-- === 0) break;
    else if (depth === 0 && /[;,?&|]/.test(c)) break;
    else if (depth === 0 && c === ':' && text[end + 1] !== ':' && text[end - 1] !== ':') break;
  }
  while (/\s/.test(text[start])) start++;
  while (/\s/.test(text[end - 1])) end--;
  return [start, end];
}

/** Whether the condition that holds `at` is an if's or a conditional operator's, and may be decided at run time. */
function context(text: string, at: number): 'guard' | 'loop' | 'fixed' {
  const start = Math.max(0, ...[';', '{', '}'].map((mark) => text.lastIndexOf(mark, at)));
  const before = text.slice(start, at);
  const branch = /\bif\s+constexpr\s*(?=\()/.exec(before);
  if (branch && closing(text, start + branch.index + branch[0].length) > at) return 'fixed';
  if (!branch && /\b(static_assert|constexpr|template|using)\b/.test(before)) return 'fixed';
  const line = text.slice(text.lastIndexOf('\n', at) + 1, at);
  return /\b(for|while)\s*\(/.test(line) ? 'loop' : 'guard';
}

/** The comma between the two arguments of a call. */
function topLevelComma(text: string, from: number, end: number): number {
  for (let i = from, depth = 0; i < end; i++) {
    if ('([{'.includes(text[i])) depth++;
    else if (')]}'.includes(text[i])) depth--;
    else if (text[i] === ',' && depth === 0) return i;
  }
  throw new Error(`min() with one argument: ${text.slice(from, end)}`);
}

const shifted: Record<string, string> = { '<': '<=', '<=': '<', '>': '>=', '>=': '>' };

/** A place and what takes its place; `render` gives the text of a part of it, with the mutations in there. */
interface Edit {
  from: number;
  to: number;
  make: (render: (from: number, to: number) => string) => string;
}

/** source[from, to) with all edits inside it. */
function rendered(source: string, edits: Edit[], from: number, to: number): string {
  const inside = edits.filter((it) => it.from >= from && it.to <= to);
  let result = '';
  let done = from;
  for (const edit of inside) {
    if (edit.to <= done) continue; // made together with the one that holds it
    if (edit.from < done) throw new Error(`mutations overlap at ${source.slice(edit.from, edit.to)}`);
    const others = inside.filter((it) => it !== edit);
    result += source.slice(done, edit.from) + edit.make((a, b) => rendered(source, others, a, b));
    done = edit.to;
  }
  return result + source.slice(done, to);
}

/** All mutations of `source` in one text. */
export function mutate(source: string): Mutated {
  const text = code(source);
  const mutations: Mutation[] = [];
  const edits: Edit[] = [];
  const note = (at: number, change: string) => {
    mutations.push({ line: text.slice(0, at).split('\n').length, change: change.replace(/\s+/g, ' ') });
    return mutations.length - 1;
  };

  const wait = (match: RegExpExecArray) => {
    const from = match.index;
    const open = from + match[0].length - 1;
    const to = closing(text, open);
    const whole = source.slice(from, to);
    const out = note(from, `without ${whole}`);
    const groups = /^\d+$/.test(match[3] ?? '') ? Number(match[3]) : -1;
    const longer = `${match[1]}<${groups + 1}>`;
    const later = groups < 0 ? -1 : note(from, `${longer}${source.slice(open, to)} for ${whole}`);
    edits.push({
      from,
      to,
      make: (render) => {
        const call = source.slice(from, open) + render(open, to);
        const other = later < 0 ? '' : `simtIs(${later}) ? ${longer}${render(open, to)} : `;
        return `(simtIs(${out}) ? (void)0 : ${other}${call})`;
      },
    });
  };

  const compare = (at: number, operator: string) => {
    const kind = context(text, at);
    const sign = operator.trim();
    const other = shifted[sign];
    if (kind === 'fixed' || (kind === 'loop' && !other)) return;
    const after = at + operator.length;
    const [from, to] = operands(text, at, after);
    const [left, right] = [source.slice(from, at), source.slice(after, to)];
    const off = other ? note(at, `${left} ${other} ${right}`) : -1;
    const always = kind === 'guard' ? note(at, `true for ${left} ${sign} ${right}`) : -1;
    edits.push({
      from,
      to,
      make: (render) => {
        const [a, b] = [render(from, at), render(after, to)];
        const plain = `(${a}) ${sign} (${b})`;
        const choice = other ? `(simtIs(${off}) ? (${a}) ${other} (${b}) : ${plain})` : plain;
        return always < 0 ? choice : `(simtIs(${always}) || (${choice}))`;
      },
    });
  };

  const least = (from: number) => {
    if (context(text, from) === 'fixed') return;
    const open = from + 4;
    const to = closing(text, open - 1);
    const comma = topLevelComma(text, open, to);
    const [a, b] = [source.slice(open, comma), source.slice(comma + 1, to - 1).trim()];
    const one = note(from, `${a} for min(${a}, ${b})`);
    const two = note(from, `${b} for min(${a}, ${b})`);
    edits.push({
      from,
      to,
      make: (render) => {
        const [first, second] = [render(open, comma), render(comma + 1, to - 1)];
        return `(simtIs(${one}) ? (${first}) : simtIs(${two}) ? (${second}) : min(${first}, ${second}))`;
      },
    });
  };

  for (const [from, to] of bodies(text)) {
    const body = text.slice(0, to);
    waits.lastIndex = from;
    for (let match = waits.exec(body); match; match = waits.exec(body)) wait(match);
    for (const { 0: operator, index } of body.slice(from).matchAll(/ (<|<=|>|>=|==|!=) /g))
      compare(from + index, operator);
    for (const { index } of body.slice(from).matchAll(/(?<![\w.:])min\(/g)) least(from + index);
  }
  edits.sort((a, b) => a.from - b.from || b.to - a.to);
  const result = rendered(source, edits, 0, source.length);
  // The declarations stand first, on a line that the compiler is told not to count.
  return { source: `${prelude}#line 1\n${result}`, mutations };
}
