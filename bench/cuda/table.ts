import type { OpBench } from '../../lib/bench/ops.ts';
import { table } from '../table.ts';

export type Measured = Device | Kernel;

interface Device {
  readonly bench: 'device';
  readonly name: string;
  readonly sm: number;
  readonly date: string;
  readonly torch: string | undefined;
  /** GB/s of a copy, read and written. */
  readonly copy: number;
}

interface Kernel {
  readonly bench: 'kernel';
  readonly name: string;
  readonly family: OpBench['family'];
  readonly op: string;
  readonly dtype: string;
  readonly flops: number;
  readonly bytes: number;
  /** Median seconds: ours, and of each way of PyTorch's; missing where `problems` says why. */
  readonly ours: number | undefined;
  readonly peers: Readonly<Record<string, number>> | undefined;
  readonly problems: readonly string[];
}

/** Everything measured as Markdown. Ratios above 1 mean that ours is faster. */
export function markdown(results: readonly Measured[]): string {
  const kernels = results.filter((r): r is Kernel => r.bench === 'kernel');
  const devices = results.filter((r): r is Device => r.bench === 'device');
  const copy = devices[0]?.copy;
  const bound = (memory: boolean): Kernel[] => kernels.filter(({ family }) => (family === 'memory') === memory);
  const peers = ({ peers, ours }: Kernel): string[] => {
    const ways = Object.entries(peers ?? {}).sort(([, a], [, b]) => a - b);
    const text = ways.map(([way, seconds]) => `${way} ${time(seconds)}`).join(', ');
    return [text, ours && ways.length ? (ways[0][1] / ours).toFixed(2) : ''];
  };
  return [
    ...devices.map(
      (d) =>
        `${d.name} (sm_${d.sm}), ${d.date.slice(0, 10)}; copies: ${d.copy.toFixed(0)} GB/s; ` +
        `${d.torch ? `PyTorch ${d.torch}` : 'no PyTorch to compare with'}. Ratios above 1: ours is faster.`,
    ),
    table(
      ['products', 'type', 'time', 'TFLOP/s', 'PyTorch', 'ratio'],
      bound(false).map((k) => [
        k.name,
        k.dtype,
        k.ours ? time(k.ours) : 'failed',
        k.ours ? (k.flops / k.ours / 1e12).toFixed(0) : '',
        ...peers(k),
      ]),
    ),
    table(
      ['bound by memory', 'type', 'time', 'GB/s', 'of a copy', 'PyTorch', 'ratio'],
      bound(true).map((k) => [
        k.name,
        k.dtype,
        k.ours ? time(k.ours) : 'failed',
        k.ours ? (k.bytes / k.ours / 1e9).toFixed(0) : '',
        k.ours && copy ? (k.bytes / k.ours / 1e9 / copy).toFixed(2) : '',
        ...peers(k),
      ]),
    ),
    ...kernels.flatMap(({ name, problems }) => problems.map((problem) => `- ${name}: ${problem}`)),
  ]
    .filter(Boolean)
    .join('\n\n');
}

const time = (seconds: number): string => `${(seconds * 1e6).toPrecision(3)} us`;
