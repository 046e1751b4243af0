import type { Device } from '../runtime/index.ts';

/** Options that several commands share, as yargs takes them. */
export const deviceOptions = {
  device: { requiresArg: true, describe: 'auto, cpu, cuda or cuda:N', type: 'string', default: 'auto' },
  threads: { requiresArg: true, describe: 'threads of the CPU [all by default]', type: 'number' },
} as const;

export const fileOptions = {
  out: {
    alias: 'o',
    requiresArg: true,
    describe: 'folder for the results: <name>.png for each picture',
    type: 'string',
    demandOption: true,
  },
  json: { describe: 'print one JSON object a picture', type: 'boolean', default: false },
} as const;

export const inputs = {
  describe: 'image files, or folders of them',
  type: 'string',
  array: true,
  default: undefined,
  demandOption: true,
} as const;

/** What the options above become. */
export interface FileArgs {
  readonly inputs: string[];
  readonly out: string;
  readonly json: boolean;
  readonly device: string;
  readonly threads?: number;
}

/** An option with a number, as yargs takes it. */
export const number = (describe: string, value: number) =>
  ({ describe, type: 'number', requiresArg: true, default: value }) as const;

/** An option with a number that may be left out. */
export const amount = (describe: string) => ({ describe, type: 'number', requiresArg: true }) as const;

/** An option with a text: a path, a name. */
export const text = (describe: string) => ({ describe, type: 'string', requiresArg: true }) as const;

/** An option that is there or not. */
export const flag = (describe: string) => ({ describe, type: 'boolean', default: false }) as const;

/** What networks that train compute in, as an option. */
export const dtypeOption = {
  describe: 'what networks compute in: by default bf16 on a GPU, f32 elsewhere, where bf16 saves no time',
  requiresArg: true,
  choices: ['auto', 'f32', 'bf16'],
  default: 'auto',
} as const;

/** What the option above means on a device. */
export const dtypeFor = ({ kind }: Pick<Device, 'kind'>, dtype: (typeof dtypeOption.choices)[number]) =>
  dtype === 'auto' ? (kind === 'cpu' ? 'f32' : 'bf16') : dtype;

/** An option's name as it is typed: judge-every of judgeEvery. */
export const typed = (name: string): string => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

/** Options under the names that are typed, for the help; yargs gives each under the name that it has here, too. */
export const dashed = <T extends object>(options: T): T =>
  Object.fromEntries(Object.entries(options).map(([name, option]) => [typed(name), option])) as T;
