const controller = new AbortController();

/** Aborted by the first Ctrl-C (or SIGTERM); the second ends the process at once. */
export const interrupted: AbortSignal = controller.signal;

/** Exit code of a run that a signal ended: 128 and the signal's number, as shells report it. */
export const interruptCode = (): number | undefined =>
  interrupted.aborted ? (interrupted.reason as Interrupt).exitCode : undefined;

class Interrupt extends Error {
  readonly exitCode: number;
  constructor(exitCode: number) {
    super('interrupted');
    this.exitCode = exitCode;
  }
}

/** Starts to turn signals into {@link interrupted}. */
export function catchSignals(): void {
  for (const [signal, code] of Object.entries({ SIGINT: 130, SIGTERM: 143 })) {
    process.on(signal, () => {
      if (interrupted.aborted) process.exit(code);
      controller.abort(new Interrupt(code));
    });
  }
}
