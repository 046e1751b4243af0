import { runParity } from './suites.ts';

const files = process.argv.slice(2);
if (!files.length) {
  console.error('usage: npm run parity -- FILE...   (safetensors files of reference numbers)');
  process.exitCode = 2;
} else {
  const { passed, failed } = await runParity(files, console.log);
  console.log(`${passed} passed, ${failed} failed`);
  process.exitCode = failed ? 1 : 0;
}
