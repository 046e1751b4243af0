import { runParity } from './suites.ts';

const files = process.argv.slice(2);
if (!files.length) {
  console.error('usage: npm run parity -- FILE...   (safetensors files of reference numbers)');
  process.exitCode = 2;
} else {
  try {
    const { passed, failed } = await runParity(files, console.log);
    console.log(`${passed} passed, ${failed} failed`);
    process.exitCode = failed ? 1 : 0;
  } catch (error) {
    console.error(`error: ${(error as Error).message}`);
    process.exitCode = 1;
  }
}
