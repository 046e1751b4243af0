/** Suggested limits of golden/README.md for float32 against float32, as max|a - b| / max|b|. */
export const limits = { op: 1e-5, output: 2e-5, inputGrad: 5e-5, weightGrad: 2e-4 } as const;

/** Counts comparisons and prints one line for each. */
export class Report {
  passed = 0;
  failed = 0;
  /** Files that hold nothing to compare with. */
  skipped = 0;
  private readonly print: (line: string) => void;

  constructor(print: (line: string) => void) {
    this.print = print;
  }

  /** A comparison whose error must not exceed `limit`; NaN fails. */
  add(name: string, error: number, limit: number, note = ''): void {
    const ok = error <= limit;
    if (ok) this.passed++;
    else this.failed++;
    this.print(
      `${ok ? 'ok  ' : 'FAIL'} ${name}  error ${error.toExponential(2)}  limit ${limit.toExponential(0)}${note && `  ${note}`}`,
    );
  }

  /** A file that holds no reference numbers, and is none the worse for it. */
  skip(name: string, why: string): void {
    this.skipped++;
    this.print(`none ${name}  ${why}`);
  }

  /** Something that could not be compared at all. */
  fail(name: string, why: string): void {
    this.failed++;
    this.print(`FAIL ${name}  ${why}`);
  }
}

export function maxAbs(values: ArrayLike<number>): number {
  let largest = 0;
  for (let i = 0; i < values.length; i++) {
    const v = Math.abs(values[i]);
    if (!(v <= largest)) largest = v;
  }
  return largest;
}

/** max|a - b| over max|b|, or over `scale`; the plain difference where that is 0. NaN unless both have one length. */
export function relativeError(a: ArrayLike<number>, b: ArrayLike<number>, scale = maxAbs(b)): number {
  if (a.length !== b.length) return Number.NaN;
  let worst = 0;
  for (let i = 0; i < a.length; i++) {
    const difference = Math.abs(a[i] - b[i]);
    if (!(difference <= worst)) worst = difference;
  }
  return scale ? worst / scale : worst;
}

/** Euclidean norm. */
export function norm(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i] ** 2;
  return Math.sqrt(sum);
}
