// Writes ops.json as C++ sees it, into the folder given: op_table.inc holds the rows of native/exec/op_table.h's OpInfo,
// op_kernels.inc one REFL_KERNEL(name, binder) for every operator that needs a kernel (the leaves need none).
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const folder = process.argv[2];
if (!folder) throw new Error('usage: node scripts/op-table.mjs FOLDER');

const { ops } = JSON.parse(readFileSync(new URL('../ops.json', import.meta.url), 'utf8'));
const list = (names = []) => `{${names.map((name) => JSON.stringify(name)).join(', ')}}`;
const binder = (name) => `bind${name[0].toUpperCase()}${name.slice(1)}`;

const rows = [];
const kernels = [];
for (const [name, op] of Object.entries(ops)) {
  const lists = [op.inputs, op.group, op.outputs, Object.keys(op.attrs), op.writes].map(list);
  rows.push(`{"${name}", "${op.family}", ${lists.join(', ')}, ${op.view === true}},\n`);
  if (op.family !== 'leaf') kernels.push(`REFL_KERNEL(${name}, ${binder(name)})\n`);
}

const head = '// Generated from ops.json by scripts/op-table.mjs.\n';
mkdirSync(folder, { recursive: true });
for (const [name, lines] of Object.entries({ 'op_table.inc': rows, 'op_kernels.inc': kernels })) {
  const path = join(folder, name);
  const text = head + lines.join('');
  // What includes a file that stays as it is need not be compiled again.
  if (!existsSync(path) || readFileSync(path, 'utf8') !== text) writeFileSync(path, text);
}
