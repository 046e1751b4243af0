import { ReflError } from '../errors.ts';

/** Exit codes of every command; a run that a signal ended has 130 (Ctrl-C) or 143. */
export const FAILED = 1;
export const USAGE = 2;

/** A command line that makes no sense. */
export class UsageError extends Error {}

/** Codes of errors in what the user asked for, rather than in what became of it. */
const usage = ['ERR_OPTION', 'ERR_DEVICE'];

export const exitCodeOf = (error: unknown): number =>
  error instanceof UsageError || (error instanceof ReflError && usage.includes(error.code)) ? USAGE : FAILED;

/** An error's message on one line; a list in it is cut after a few. */
export function oneLine(error: unknown): string {
  const [first, ...list] = (error instanceof Error ? error.message : String(error)).trim().split(/\s*\n\s*/);
  const more = list.length > 4 ? [`and ${list.length - 4} more`] : [];
  return [first, [...list.slice(0, 4), ...more].join('; ')].filter(Boolean).join(' ');
}
