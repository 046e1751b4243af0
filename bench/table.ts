import type { NetworkResult, OpeningResult } from './networks.ts';
import type { OpResult } from './ops.ts';

export type Result = MachineResult | OpResult | NetworkResult | OpeningResult;

export interface MachineResult {
  readonly bench: 'machine';
  readonly processor: string;
  readonly node: string;
  readonly threads: number;
  /** GFLOP/s of fused multiply-adds in registers. */
  readonly peakOneThread: number;
  readonly peak: number;
  /** GB/s of a copy, read and written. */
  readonly copy: number;
  /** Load average before anything ran: what else this machine was doing. */
  readonly load: number;
}

/** Everything measured as Markdown. Ratios above 1 mean that ours is faster. */
export function markdown(results: readonly Result[]): string {
  const of = <K extends Result['bench']>(bench: K) =>
    results.filter((r): r is Extract<Result, { bench: K }> => r.bench === bench);
  const ops = (...families: OpResult['family'][]): OpResult[] =>
    of('op').filter(({ family }) => families.includes(family));
  return [
    ...of('machine').map(
      (m) =>
        `${m.processor}, ${m.threads} threads, load ${m.load.toFixed(1)} at the start. Fused multiply-adds: ` +
        `${whole(m.peakOneThread)} GFLOP/s on one thread, ${whole(m.peak)} on all; copies: ${whole(m.copy)} GB/s. ` +
        'Ratios above 1: ours is faster.',
    ),
    table(
      [
        'convolution, linear layer',
        'GFLOP/s',
        'of the peak',
        'oneDNN direct',
        'oneDNN Winograd',
        'ratio to direct',
        'ratio to its best',
      ],
      ops('conv', 'linear').map((op) => {
        const { winograd, ...others } = op.peers;
        const direct = Math.min(...Object.values(others));
        const rate = (seconds: number | undefined): string => (seconds ? whole(op.flops / seconds / 1e9) : '');
        const best = Math.min(direct, winograd ?? direct);
        return [
          op.name,
          rate(op.ours),
          share(op),
          rate(direct),
          rate(winograd),
          ratio(direct, op.ours),
          ratio(best, op.ours),
        ];
      }),
    ),
    table(
      ['attention', 'GFLOP/s', 'of the peak', 'PyTorch', 'ratio', 'memory beside q, k, v'],
      ops('attention').map((op) => {
        const torch = bestOf(op);
        return [
          op.name,
          whole(op.flops / op.ours / 1e9),
          share(op),
          whole(op.flops / torch / 1e9),
          ratio(torch, op.ours),
          `${(op.peakBytes / 1e6).toFixed(1)} MB`,
        ];
      }),
    ),
    table(
      ['bound by memory', 'GB/s', 'of a copy', 'PyTorch', 'ratio'],
      ops('memory').map((op) => {
        const torch = bestOf(op);
        const rate = (seconds: number): number => op.bytes / seconds / 1e9;
        return [
          op.name,
          rate(op.ours).toFixed(1),
          (rate(op.ours) / op.limit).toFixed(2),
          rate(torch).toFixed(1),
          ratio(torch, op.ours),
        ];
      }),
    ),
    table(
      ['network', 'seconds', 'of the peak', 'PyTorch', 'ratio', 'peak memory', "PyTorch's", 'timers late, p99'],
      of('network').map((n) => [
        n.name,
        n.ours.toPrecision(3),
        n.flops ? share({ ...n, flops: n.flops }) : '',
        n.torch?.toPrecision(3) ?? '',
        n.torch ? ratio(n.torch, n.ours) : '',
        gigabytes(n.peakRssBytes),
        gigabytes(n.torchPeakRssBytes),
        n.loopDelayMs === undefined ? '' : `${n.loopDelayMs.toFixed(1)} ms`,
      ]),
    ),
    table(
      ['opening a file in the page cache', 'to the first result', 'second run', 'difference'],
      of('opening').map(({ bytes, first, second }) => [
        `UNet, ${gigabytes(bytes)}`,
        ...[first, second, first - second].map((s) => `${s.toFixed(2)} s`),
      ]),
    ),
  ]
    .filter(Boolean)
    .join('\n\n');
}

const whole = (x: number): string => x.toFixed(0);
const ratio = (theirs: number, ours: number): string => (theirs / ours).toFixed(2);
const share = ({ flops, ours, limit }: { flops: number; ours: number; limit: number }): string =>
  (flops / ours / 1e9 / limit).toFixed(2);
const bestOf = ({ peers }: OpResult): number => Math.min(...Object.values(peers));
const gigabytes = (bytes: number | undefined): string => (bytes === undefined ? '' : `${(bytes / 1e9).toFixed(1)} GB`);

/** Rows of cells under their titles, as Markdown; nothing where there are none. */
export function table(titles: readonly string[], rows: readonly (readonly string[])[]): string {
  if (!rows.length) return '';
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  return [line(titles), line(titles.map((_, i) => (i ? '--:' : '---'))), ...rows.map(line)].join('\n');
}
