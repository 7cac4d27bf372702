// `npm start [-- DIR | FILE …]`: sets up what is missing, then runs the batch inference job.
import { resolve } from 'node:path';
import { main, run } from './process.mjs';
import { setUp } from './setup.mjs';

await main(async (args) => {
  await setUp();
  // npm runs scripts in the project's root; the user's paths start where the user is.
  const paths = args.map((path) => resolve(process.env.INIT_CWD ?? '.', path));
  const { code } = await run(process.execPath, ['--import', 'tsx', 'examples/batch-inference.ts', ...paths]);
  return code;
});
