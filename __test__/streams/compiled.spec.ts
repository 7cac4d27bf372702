/** Generator functions that compilers turned into others stream as well: they are recognised before they are called. */
import { mkdirSync, mkdtempSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import { transformSync } from 'esbuild';
import { ObjectRef, ObjectRefGenerator, remote, type SerializationError } from 'heliostat';
import ts from 'typescript';
import { withCluster } from '../support/cluster.js';
import { modulesOf, testWith } from '../support/tools.js';

withCluster(test);

const SOURCE = `
export function* synchronous(n) { for (let i = 0; i < n; i++) yield i; }
export async function* asynchronous(n) { for (let i = 0; i < n; i++) { await null; yield i; } }
export const expression = async function* (n) { for (let i = 0; i < n; i++) yield i; };
export const { method } = { *method(n) { yield* synchronous(n); } };
export async function notOne(n) {
  async function* inner() { yield n; }
  return (await inner().next()).value;
}
`;

type Functions = Record<string, (n: number) => unknown>;
const require = createRequire(import.meta.url);

/** Loads compiled code as a program's own module. */
function load(code: string): Functions {
  const dir = mkdtempSync(join(tmpdir(), 'heliostat-test-'));
  mkdirSync(join(dir, 'node_modules'));
  symlinkSync(join(require.resolve('tslib'), '..'), join(dir, 'node_modules/tslib'));
  writeFileSync(join(dir, 'program.cjs'), code);
  return require(join(dir, 'program.cjs')) as Functions;
}

async function streams(t: ExecutionContext, { notOne, ...generators }: Functions): Promise<void> {
  t.true(Object.keys(generators).length >= 3);
  for (const [name, generator] of Object.entries(generators)) {
    const items = remote(generator).remote(5) as unknown;
    if (!(items instanceof ObjectRefGenerator)) {
      t.fail(`${name} is not recognised: ${generator}`);
      continue;
    }
    const seen: unknown[] = [];
    for await (const value of items.values()) seen.push(value);
    t.deepEqual(seen, [0, 1, 2, 3, 4], name);
  }
  const ref = remote(notOne as (n: number) => unknown).remote(7);
  t.true(ref instanceof ObjectRef, 'an async function is none, whatever is inside');
  t.is(await (ref as ObjectRef).get(), 7);
}

for (const target of ['ES5', 'ES2015', 'ES2017', 'ES2018'] as const) {
  for (const importHelpers of [false, true]) {
    test.serial(`TypeScript to ${target}${importHelpers ? ', with tslib' : ''}`, async (t) => {
      const { outputText } = ts.transpileModule(SOURCE, {
        compilerOptions: {
          target: ts.ScriptTarget[target],
          module: ts.ModuleKind.CommonJS,
          importHelpers,
          downlevelIteration: true,
        },
      });
      await streams(t, load(outputText));
    });
  }
}

for (const target of ['es2016', 'es2017', 'es2018']) {
  test.serial(`esbuild to ${target}`, (t) => streams(t, load(transformSync(SOURCE, { target, format: 'cjs' }).code)));
}

test.serial('Babel', (t) =>
  streams(t, require(fileURLToPath(new URL('../fixtures/babel.cjs', import.meta.url))) as Functions),
);

testWith('compilers')('swc', async (t) => {
  const swc = createRequire(`${modulesOf('compilers')}/`)('@swc/core');
  for (const target of ['es5', 'es2015', 'es2017']) {
    const { code } = swc.transformSync(SOURCE, {
      jsc: { target, parser: { syntax: 'ecmascript' } },
      module: { type: 'commonjs' },
    });
    await streams(t, load(code));
  }
});

test('what cannot be known before says what to do', async (t) => {
  const iterator = (n: number) => {
    const numbers = Array.from({ length: n }, (_, i) => i);
    return numbers[Symbol.iterator]();
  };
  const refused = await t.throwsAsync((remote(iterator).remote(2) as unknown as ObjectRef).get());
  t.regex((refused as SerializationError).hint ?? '', /streaming: true/);
  const seen: number[] = [];
  for await (const value of remote(iterator, { streaming: true }).remote(2).values()) seen.push(value);
  t.deepEqual(seen, [0, 1]);
});
