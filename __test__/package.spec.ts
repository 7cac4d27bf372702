import { execFileSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import * as imported from 'heliostat';

/** What Node adds to the namespace of a CommonJS module. */
const INTEROP = ['default', 'module.exports', '__esModule'];

const required = createRequire(import.meta.url)('heliostat');

test('import and require give the same functions and classes', (t) => {
  const names = Object.keys(imported).filter((name) => !INTEROP.includes(name));
  t.deepEqual(names.sort(), Object.keys(required).sort());
  for (const name of names) t.is(imported[name as keyof typeof imported], required[name], name);
});

test('an error made by one entry is an instance of its class in the other', (t) => {
  const ref = Reflect.construct(Object, [], required.ObjectRef);
  t.true(ref instanceof imported.ObjectRef);
  const error = Reflect.construct(Error, ['late'], required.GetTimeoutError);
  t.true(error instanceof imported.HeliostatError);
});

test('the package to publish holds the compiled API and no sources, examples or data', (t) => {
  const cwd = fileURLToPath(new URL('..', import.meta.url));
  const [{ files }] = JSON.parse(execFileSync('npm', ['pack', '--dry-run', '--json'], { cwd, encoding: 'utf8' }));
  const paths: string[] = files.map(({ path }: { path: string }) => path);
  const top = new Set(paths.map((path) => path.split('/')[0]));
  t.deepEqual([...top].sort(), [
    'CHANGELOG.md',
    'LICENSE-APACHE',
    'LICENSE-MIT',
    'README.md',
    'dist',
    'index.d.ts',
    'native.cjs',
    'package.json',
  ]);
  for (const entry of ['mjs', 'd.mts', 'cjs', 'd.cts'].flatMap((end) => [`index.${end}`, `tensor.${end}`]))
    t.true(paths.includes(`dist/${entry}`));
  t.false(paths.some((path) => path.endsWith('.tsbuildinfo')));
});
