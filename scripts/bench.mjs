// `npm run bench [-- NAME …]`: sets up what is missing, then runs the benchmarks of bench/ one after the other.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Failure, main, ROOT, run, step } from './process.mjs';
import { setUp } from './setup.mjs';

/** The pools that Heliostat is measured against: a package of their own, so that nobody else installs them. */
const POOLS = 'bench/pools';
const NEEDS_POOLS = 'tasks';

await main(async (args) => {
  await setUp();
  if ((args.length === 0 || args.includes(NEEDS_POOLS)) && !poolsAreInstalled()) {
    await step(`pools: npm ci in ${POOLS}, for the benchmark ${NEEDS_POOLS}`, installPools);
  }
  const { code } = await run(process.execPath, ['--expose-gc', '--import', 'tsx', 'bench/main.ts', ...args]);
  return code;
});

/** Whether what the lock file names is there; npm keeps its own list in node_modules. */
function poolsAreInstalled() {
  const installed = packages('node_modules/.package-lock.json');
  const { '': _, ...wanted } = packages('package-lock.json');
  return Object.entries(wanted).every(
    ([path, { version, optional }]) => installed[path]?.version === version || (optional && !(path in installed)),
  );
}

function packages(lock) {
  try {
    return JSON.parse(readFileSync(join(ROOT, POOLS, lock), 'utf8')).packages;
  } catch (error) {
    if (error.code === 'ENOENT') return {};
    throw error;
  }
}

async function installPools() {
  const { code } = await run('npm', ['ci', '--prefix', POOLS, '--no-audit', '--no-fund', '--loglevel=error'], {
    output: 'stderr',
  });
  if (code !== 0) throw new Failure(`failed with exit code ${code}; the messages above say why`);
}
