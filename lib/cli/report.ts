import { ReflError } from '../errors.ts';
import { FAILED, oneLine } from './failure.ts';
import { Progress } from './progress.ts';

/** What a command that works through files says: results on stdout, everything else on stderr. */
export class Report {
  readonly progress: Progress;
  private readonly json: boolean;

  /** @param json print one object a file, instead of the path of what was written */
  constructor(files: number, json: boolean) {
    this.progress = new Progress(files, 'pictures');
    this.json = json;
  }

  /** A file is done. `record` is what JSON lines hold beside its name. */
  done(input: string, record: { readonly output: string; readonly [figure: string]: unknown }): void {
    this.result(input, record.output, record);
  }

  /** As {@link done}, for a file of which nothing is written: `line` is what stands for it without JSON. */
  result(input: string, line: string, record: object): void {
    this.progress.clear();
    console.log(this.json ? JSON.stringify({ input, ...record }) : line);
  }

  /** A file could not be done: the command's exit code will say so, and the next file's turn comes. */
  fail(input: string, error: unknown): void {
    process.exitCode = FAILED;
    const message = oneLine(error);
    this.progress.log(`refl-native: ${message.includes(input) ? message : `${input}: ${message}`}`);
    const code = error instanceof ReflError ? error.code : undefined;
    if (this.json) console.log(JSON.stringify({ input, error: { code, message } }));
  }

  /** Something that the user should know of a file that was done. */
  note(input: string, text: string): void {
    this.progress.log(`refl-native: ${input}: ${text}`);
  }
}
