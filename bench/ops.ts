// Operators beside oneDNN (convolutions, linear layers) and PyTorch (the rest): every round runs the machine's limit,
// ours, and each way the peer may do it, one after another, so that whatever else the machine does meets all of them.
import type { Family, OpBench } from '../lib/bench/ops.ts';
import { median, TimedOp } from '../lib/bench/timing.ts';
import type { Device } from '../lib/runtime/index.ts';
import { type Peer, Refused } from './peers.ts';

/** Rounds that count; one before them warms up, and packs frozen weights. */
const rounds = 5;

export interface OpResult {
  readonly bench: 'op';
  readonly name: string;
  readonly family: Family;
  readonly threads: number;
  readonly flops: number;
  readonly bytes: number;
  /** Bytes that our program needs beside operands and packed weights. */
  readonly peakBytes: number;
  /** Median seconds of one operation: ours, and of each way of the peer's. */
  readonly ours: number;
  readonly peers: Readonly<Record<string, number>>;
  /** The machine's rate at the same time, the best of the rounds: GFLOP/s, or GB/s for operators bound by memory. */
  readonly limit: number;
}

/** The ways a peer may do an operator; the best of them counts. */
const ways = (op: OpBench): string[] => {
  if (op.family === 'conv') return ['any', 'nhwc', 'winograd'];
  if (op.family === 'linear') return ['any', 'plain', 'inner'];
  return op.peer.startsWith('groupnorm') ? ['nchw', 'nhwc'] : ['plain'];
};

type Timing = { seconds: number; first: number; last: number };

/** @param peer oneDNN for convolutions and linear layers, PyTorch for the rest */
export async function measureOp(device: Device, op: OpBench, peak: Peer, peer: Peer): Promise<OpResult> {
  using timed = await TimedOp.prepare(device, op);
  const limitKind = op.family === 'memory' ? 'copy' : 'fma';
  const limits: number[] = [];
  const ours: number[] = [];
  const theirs = new Map(ways(op).map((way) => [way, [] as number[]]));
  for (let round = 0; round <= rounds; round++) {
    const { rate } = await peak.ask<{ rate: number }>(limitKind, device.threads);
    const own = await timed.run();
    if (round) {
      limits.push(rate);
      ours.push(own.seconds);
    }
    for (const [way, seconds] of theirs) {
      try {
        const answer = await peer.ask<Timing>(op.peer, way, timed.copies);
        agree(op.name, way, own, answer);
        if (round) seconds.push(answer.seconds);
      } catch (error) {
        if (!(error instanceof Refused && way === 'winograd')) throw error;
        theirs.delete(way);
      }
    }
  }
  await peer.ask('clear');
  return {
    bench: 'op',
    name: op.name,
    family: op.family,
    threads: device.threads,
    ...timed.work,
    peakBytes: timed.peakBytes,
    ours: median(ours),
    peers: Object.fromEntries([...theirs].map(([way, seconds]) => [way, median(seconds)])),
    limit: Math.max(...limits),
  };
}

/** Both sides began with the same numbers: a result that differs by more than rounding means another job was done. */
function agree(name: string, way: string, own: Timing, other: Timing): void {
  for (const key of ['first', 'last'] as const) {
    if (Math.abs(own[key] - other[key]) > 2e-3 * Math.max(1, Math.abs(own[key]))) {
      throw new Error(`${name}: the ${key} result is ${own[key]}, but ${other[key]} by the peer's ${way}`);
    }
  }
}
