// Tries the mutations of a program's kernels on its own tests: a mutation that all builds let pass has survived.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { build, type Program, pooled, run, type Variant } from './build.ts';
import { type Mutation, mutate } from './mutate.ts';

export interface Tried extends Mutation {
  file: string;
  /** The build whose tests failed, or undefined for a survivor. */
  by?: Variant;
}

/** The cheapest first; what one finds the others need not look at. */
const order: Variant[] = ['plain', 'race', 'address'];
/** A mutation may loop for ever: that is a way to be found out. */
const seconds = 60;

interface WrittenOut {
  text: string;
  /** Of each line. */
  from: { file: string; line: number }[];
}

/**
 * A source with those of the program's own headers written out in it that no source before had: `left`, from which they are
 * taken. And where each line comes from.
 */
function writtenOut(file: string, left: Set<string>): WrittenOut {
  const lines: string[] = [];
  const from: WrittenOut['from'] = [];
  const add = (name: string): void => {
    for (const [i, text] of readFileSync(name, 'utf8').split('\n').entries()) {
      const header = join('cuda', /^#include "(.*)"/.exec(text)?.[1] ?? '');
      if (left.delete(header)) {
        add(header);
      } else {
        lines.push(text === '#pragma once' ? '' : text);
        from.push({ file: name, line: i + 1 });
      }
    }
  };
  add(file);
  return { text: lines.join('\n'), from };
}

/** The sources of a program with what can be mutated in each. */
export function mutable(program: Program): (WrittenOut & { file: string; source: string; mutations: Mutation[] })[] {
  const headers = new Set(program.headers);
  return program.kernels.map((file) => {
    const written = writtenOut(file, headers);
    return { file, ...written, ...mutate(written.text) };
  });
}

/** Tries those mutations of `program` for which `chosen(source, number of the mutation in it)`. */
export async function tryMutations(program: Program, chosen: (file: string, n: number) => boolean): Promise<Tried[]> {
  const all: Tried[] = [];
  const cases = program.mutationCases ? ['--match', program.mutationCases] : [];
  for (const { file, source, from, mutations } of mutable(program)) {
    const copy = join('build/simt/mutated', `${program.name}-${basename(file)}`);
    mkdirSync('build/simt/mutated', { recursive: true });
    writeFileSync(copy, source);
    const kernels = program.kernels.map((it) => (it === file ? copy : it));
    let left = mutations
      .map((it, n) => ({ ...it, ...from[it.line - 1], n, by: undefined as Variant | undefined }))
      .filter((it) => chosen(file, it.n));
    if (left.length === 0) continue;
    for (const variant of order) {
      const path = await build(program, variant, kernels);
      const unchanged = await run(path, cases, seconds);
      if (unchanged.code !== 0)
        throw new Error(`${copy} fails without a mutation: ${unchanged.stderr}${unchanged.stdout}`);
      const codes = await pooled(
        left.map((it) => () => run(path, ['--mutation', String(it.n), '--stop', ...cases], seconds)),
      );
      left.forEach((it, i) => {
        if (codes[i].code !== 0) it.by = variant;
      });
      all.push(...left.filter((it) => it.by));
      left = left.filter((it) => !it.by);
      if (left.length === 0) break;
    }
    all.push(...left);
  }
  return all.sort((a, b) => a.line - b.line);
}
