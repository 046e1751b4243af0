/** One line at the bottom of a terminal: a bar, how many are done, the rate, and the time left. Nothing elsewhere. */
export class Progress {
  private readonly total: number;
  private readonly unit: string;
  private readonly first: number;
  private readonly start = performance.now();
  private drawn = 0;

  /**
   * @param total how many there are to do
   * @param unit what is counted, in the plural
   * @param first how many were done before this run: they count for the bar, not for the rate
   */
  constructor(total: number, unit: string, first = 0) {
    this.total = total;
    this.unit = unit;
    this.first = first;
  }

  /** Shows that `done` are done; fractions are welcome. */
  update(done: number, label = ''): void {
    const now = performance.now();
    // Often enough to look alive, seldom enough to cost nothing.
    if (!process.stderr.isTTY || (now - this.drawn < 100 && done < this.total)) return;
    this.drawn = now;
    const seconds = (now - this.start) / 1000;
    const rate = (done - this.first) / seconds;
    const left = rate > 0 ? `${clock((this.total - done) / rate)} left` : '';
    const pace = rate >= 1 ? `${rate.toFixed(1)} ${this.unit}/s` : rate > 0 ? `${(1 / rate).toFixed(1)} s each` : '';
    const cells = Math.round((24 * done) / this.total);
    const bar = '#'.repeat(cells).padEnd(24, '.');
    const line = `[${bar}] ${Math.floor(done)}/${this.total} ${this.unit}  ${pace}  ${left}  ${label}`;
    process.stderr.write(`\r\x1b[K${line.slice(0, (process.stderr.columns ?? 80) - 1)}`);
  }

  /** Prints a line above the bar. */
  log(line: string): void {
    this.clear();
    process.stderr.write(`${line}\n`);
  }

  /** Removes the bar. */
  clear(): void {
    if (this.drawn) process.stderr.write('\r\x1b[K');
    this.drawn = 0;
  }
}

/** A bar for each of several stages, which follow one another and are named as they begin. */
export class StageProgress {
  private current: { stage: string; progress: Progress } | undefined;

  /** Shows that a stage did `done` of `total`. */
  update(stage: string, done: number, total: number): void {
    if (this.current?.stage !== stage) {
      this.clear();
      this.current = { stage, progress: new Progress(total, stage) };
      this.log(`refl-native: ${stage}`);
    } else if (total !== 1) this.current.progress.update(done);
  }

  /** Prints a line above the bar. */
  log(line: string): void {
    (this.current?.progress ?? new Progress(1, '')).log(line);
  }

  /** Removes the bar. */
  clear(): void {
    this.current?.progress.clear();
  }
}

/** Seconds as 1:05 or 2:01:05. */
export function clock(seconds: number): string {
  const whole = Math.round(seconds);
  const two = (n: number): string => String(n % 60).padStart(2, '0');
  const minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${minutes}:${two(whole)}` : `${Math.floor(minutes / 60)}:${two(minutes)}:${two(whole)}`;
}
