import { existsSync } from 'node:fs';
import { availableParallelism, cpus, freemem, totalmem } from 'node:os';
import sharp from 'sharp';
import type { CommandModule } from 'yargs';
import { shippedModels } from '../restore/model.ts';
import { cudaState, native, openDevice } from '../runtime/index.ts';
import { FAILED, oneLine } from './failure.ts';

interface Finding {
  /** What was looked at. */
  readonly what: string;
  /** What was found there. */
  readonly found: string;
  /** False where something does not work that should: the finding then says what to do. */
  readonly ok: boolean;
}

export const doctorCommand: CommandModule<object, { json: boolean }> = {
  command: 'doctor',
  describe: 'say what was found: devices, builds, versions',
  builder: { json: { describe: 'print one JSON object a finding', type: 'boolean', default: false } },
  handler: async ({ json }) => {
    for (const finding of await findings()) {
      const { what, found, ok } = finding;
      console.log(json ? JSON.stringify(finding) : `${ok ? 'ok' : '!!'}  ${what.padEnd(10)} ${found}`);
      if (!ok) process.exitCode = FAILED;
    }
  },
};

async function findings(): Promise<Finding[]> {
  const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(1)} GB`;
  return [
    { what: 'node', found: `${process.version} on ${process.platform} ${process.arch}`, ok: true },
    {
      what: 'processor',
      found: `${cpus()[0]?.model.trim() ?? 'unknown'}, ${availableParallelism()} threads`,
      ok: true,
    },
    { what: 'memory', found: `${gigabytes(totalmem())}, ${gigabytes(freemem())} free`, ok: true },
    await attempt('addon', async () => `loaded, kernels for ${native().info().isa}`),
    await attempt('cpu', async () => describe('cpu')),
    cuda(),
    { what: 'images', found: `sharp ${sharp.versions.sharp}, libvips ${sharp.versions.vips}`, ok: true },
    ...Object.entries(shippedModels).map(([name, path]) => ({
      what: 'model',
      found: existsSync(path) ? name : `${path} is missing`,
      ok: existsSync(path),
    })),
  ];
}

async function attempt(what: string, look: () => Promise<string>): Promise<Finding> {
  try {
    return { what, found: await look(), ok: true };
  } catch (error) {
    return { what, found: oneLine(error), ok: false };
  }
}

async function describe(name: string): Promise<string> {
  using device = await openDevice(name);
  return `usable, ${device.threads} threads`;
}

/** A machine without a GPU, or without the library, is not ill; a library that does not open is. */
function cuda(): Finding {
  try {
    const { library, build, devices, reason } = cudaState();
    const where = build ? ` (${library}, built with ${build})` : '';
    // No kernel of Hopper's own has been measured faster yet: docs/decisions.md.
    const found = devices ? `${devices} usable, by the kernels for sm_80` : `not usable: ${reason}`;
    return { what: 'cuda', found: `${found}${where}`, ok: !library || !!build };
  } catch (error) {
    return { what: 'cuda', found: oneLine(error), ok: false };
  }
}
