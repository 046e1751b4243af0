// Weights that nobody stores: every value follows from its tensor's key and its place (../shared/golden/full/README.md).
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { crc32, gunzipSync } from 'node:zlib';
import type { Shape } from '../../lib/graph/tensor.ts';
import type { Golden } from './golden.ts';

/** By key: its shape, the rule that makes it, and the values of small ones that no rule makes. */
export type Manifest = Record<string, readonly [shape: Shape, rule: string, values?: number[]]>;

const shared = fileURLToPath(new URL('../../../shared/golden/full/', import.meta.url));

/** The path of a file beside `golden`, or, where it is not there, among the shared ones. */
export function beside(golden: Golden, name: string): string {
  const paths = [dirname(golden.file.path), shared].map((folder) => join(folder, name));
  const found = paths.find(existsSync);
  if (!found) throw new Error(`${golden.file.path}: ${name} lies neither beside it nor in ${shared}`);
  return found;
}

export const readManifest = (golden: Golden, name: string): Manifest =>
  JSON.parse(gunzipSync(readFileSync(beside(golden, `manifests/${name}.json.gz`))).toString()).keys;

/** The hash of element `j` of a tensor whose key has the checksum `crc`: 32 bits. */
export function hash(crc: number, j: number): number {
  let x = (Math.imul(j, 0x9e3779b1) + crc) | 0;
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return (x ^ (x >>> 16)) >>> 0;
}

/** What each rule makes of u, uniform on [-1, 1): base + factor * u, or of |u|. */
function line(rule: string, shape: Shape): { base: number; factor: number; absolute?: boolean } {
  switch (rule) {
    case 'matrix':
      return { base: 0, factor: Math.sqrt(3 / shape.slice(1).reduce((a, b) => a * b, 1)) };
    case 'table':
      return { base: 0, factor: 0.5 };
    case 'scale':
      return { base: 1, factor: 0.2 };
    case 'vector':
    case 'running_mean':
      return { base: 0, factor: 0.2 };
    case 'running_var':
      return { base: 1, factor: 0.5, absolute: true };
    default:
      throw new Error(`unknown rule ${rule}`);
  }
}

/** Fills `values` with what the manifest says of `key`, in float64, rounded once. */
export function fillByFormula(values: Float32Array, manifest: Manifest, key: string, gain = 1): void {
  const row = manifest[key];
  if (!row) throw new Error(`the manifest lacks ${key}`);
  const [shape, rule, given] = row;
  if (rule === 'as_built') {
    if (given?.length !== values.length) throw new Error(`the manifest has no values of ${key}`);
    values.set(given);
    return;
  }
  const { base, factor, absolute } = line(rule, shape);
  const crc = crc32(key);
  const extra = rule === 'matrix' ? gain : 1;
  for (let j = 0; j < values.length; j++) {
    const u = hash(crc, j) / 2 ** 31 - 1;
    values[j] = base + (absolute ? Math.abs(u) : u) * factor * extra;
  }
}
