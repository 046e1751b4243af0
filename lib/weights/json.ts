import { ReflError } from '../errors.ts';

/**
 * The first key that stands twice in one object of `text`, which JSON.parse has accepted: it would silently keep the
 * last. Undefined when there is none.
 */
export function duplicateKey(text: string): string | undefined {
  // One entry per open bracket: an object's keys so far, or undefined for an array.
  const open: (Set<string> | undefined)[] = [];
  const token = /"(?:[^"\\]|\\.)*"(\s*:)?|[{}[\]]/g;
  for (let match = token.exec(text); match; match = token.exec(text)) {
    const [found, colon] = match;
    if (found === '{') open.push(new Set());
    else if (found === '[') open.push(undefined);
    else if (found === '}' || found === ']') open.pop();
    else if (colon) {
      const key = JSON.parse(found.slice(0, -colon.length)) as string;
      const keys = open.at(-1)!;
      if (keys.has(key)) return key;
      keys.add(key);
    }
  }
  return undefined;
}

/** A JSON object, or an ERR_WEIGHTS that begins with `where`. */
export function parseObject(text: string, where: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new ReflError('ERR_WEIGHTS', `${where}: the header is not JSON (${(cause as Error).message})`, { cause });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new ReflError('ERR_WEIGHTS', `${where}: the header is not a JSON object`);
  }
  const twice = duplicateKey(text);
  if (twice !== undefined)
    throw new ReflError('ERR_WEIGHTS', `${where}: the key ${JSON.stringify(twice)} stands twice`);
  return value as Record<string, unknown>;
}
