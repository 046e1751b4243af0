import { ReflError } from '../errors.ts';

/** A header holds tensors, which hold lists: deeper nesting, and more keys than any model has, only serve to exhaust memory. */
const deepest = 4;
const mostKeys = 1_000_000;

/** Parses `what`, a JSON object that may come from anyone, or throws an ERR_WEIGHTS that begins with `where`. */
export function parseObject(text: string, where: string, what = 'the header'): Record<string, unknown> {
  const bad = (why: string, cause?: unknown): ReflError =>
    new ReflError('ERR_WEIGHTS', `${where}: ${what} ${why}`, { cause });
  let value: unknown;
  let fault: string | undefined;
  try {
    fault = findFault(text);
    if (!fault) value = JSON.parse(text);
  } catch (cause) {
    throw bad(`is not JSON (${(cause as Error).message})`, cause);
  }
  if (fault) throw bad(fault);
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw bad('is not a JSON object');
  return value as Record<string, unknown>;
}

/** What JSON.parse would let pass: a key that stands twice in one object (it keeps the last), and sheer size. */
function findFault(text: string): string | undefined {
  // One entry per open bracket: an object's keys so far, or undefined for an array.
  const open: (Set<string> | undefined)[] = [];
  let keys = 0;
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (c === '{' || c === '[') {
      open.push(c === '{' ? new Set() : undefined);
      if (open.length > deepest) return `is nested more than ${deepest} deep`;
    } else if (c === '}' || c === ']') {
      open.pop();
    } else if (c === '"') {
      const start = i++;
      while (i < text.length && text[i] !== '"') i += text[i] === '\\' ? 2 : 1;
      if (!isFollowedByColon(text, i + 1)) continue;
      const key = JSON.parse(text.slice(start, i + 1)) as string;
      if (open.at(-1)?.has(key)) return `holds the key ${JSON.stringify(key)} twice`;
      open.at(-1)?.add(key);
      if (++keys > mostKeys) return `has more than ${mostKeys} keys`;
    }
  }
  return undefined;
}

function isFollowedByColon(text: string, from: number): boolean {
  let i = from;
  while (text[i] === ' ' || text[i] === '\n' || text[i] === '\r' || text[i] === '\t') i++;
  return text[i] === ':';
}
