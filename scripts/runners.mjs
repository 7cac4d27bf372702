// `node scripts/runners.mjs`: installs the test runners under which the package is tested. They are no dependencies of the repository:
// it does not need them, and they are many.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { main, ROOT, run } from './process.mjs';

const VERSIONS = {
  vitest: '4.1.12',
  vite: '7.3.8',
  jest: '30.5.2',
  'ts-jest': '29.4.15',
  typescript: '5.9.3',
  '@babel/plugin-transform-modules-commonjs': '7.29.14',
};

await main(async () => {
  const directory = join(ROOT, 'target/runners');
  const wanted = JSON.stringify({ private: true, dependencies: VERSIONS }, null, 2);
  const complete = join(directory, 'node_modules/.complete');
  if (existsSync(complete) && readFileSync(complete, 'utf8') === wanted) return 0;
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, 'package.json'), wanted);
  const options = ['--silent', '--no-audit', '--no-fund', '--no-package-lock', '--prefix', directory];
  const { code } = await run('npm', ['install', ...options]);
  if (code !== 0) return code;
  writeFileSync(complete, wanted);
  return 0;
});
