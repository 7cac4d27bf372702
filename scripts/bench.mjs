// `npm run bench [-- NAME …]`: sets up what is missing, then runs the benchmarks of bench/ one after the other.
import { main, run } from './process.mjs';
import { setUp } from './setup.mjs';

await main(async (args) => {
  await setUp();
  const { code } = await run(process.execPath, ['--expose-gc', '--import', 'tsx', 'bench/main.ts', ...args]);
  return code;
});
