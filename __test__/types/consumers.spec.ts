/** The published types, as programs of every kind of module resolution see them, with their declarations checked too. */
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import test from 'ava';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const TSC = join(ROOT, 'node_modules/typescript/bin/tsc');
const run = promisify(execFile);

const PROGRAM = `
import { get, GetTimeoutError, init, type ObjectRef, type ObjectRefGenerator, put, remote, TaskError } from 'heliostat';
import { Tensor } from 'heliostat/tensor';
const sum = remote((x: Tensor<'float32'>) => x.data.reduce((a, b) => a + b, 0));
export const total: ObjectRef<number> = sum.remote(put(Tensor.allocate('float32', [2, 3])));
const doubled = remote((x: Tensor<'float32'>) => new Tensor<'float32'>(x.data.map((value) => 2 * value), x.shape));
export const twice: Promise<Tensor<'float32'>> = doubled.remote(new Tensor(Float32Array.of(1, 2), [2])).get();
const add = remote((a: number, b: number) => a + b);
const numbers = remote(function* (n: number) { yield n; });
const later = remote(async function* (n: number) { yield String(n); }, { bufferedItems: 2 });
export const items: ObjectRefGenerator<number> = numbers.remote(3);
export const texts: AsyncIterable<ObjectRef<string>> = later.remote(3);
export const first: Promise<IteratorResult<ObjectRef<string>>> = later.remote(3).next();
export async function main(): Promise<number> {
  await init({ numCpus: 2 });
  const sum: ObjectRef<number> = add.remote(put(1), 2);
  try {
    return await get(sum, { timeoutMs: 1000 });
  } catch (error) {
    if (error instanceof GetTimeoutError) return error.code.length;
    if (error instanceof TaskError) return error.cause === undefined ? 0 : error.pid;
    throw error;
  }
}
`;

const KINDS = [
  { name: 'NodeNext, import', file: 'program.mts', options: ['--module', 'nodenext'] },
  { name: 'NodeNext, require', file: 'program.cts', options: ['--module', 'nodenext'] },
  { name: 'Node16, require', file: 'program.cts', options: ['--module', 'node16'] },
  {
    name: 'CommonJS',
    file: 'program.ts',
    options: ['--module', 'commonjs', '--moduleResolution', 'node10', '--ignoreDeprecations', '5.0'],
  },
  { name: 'bundler', file: 'program.ts', options: ['--module', 'esnext', '--moduleResolution', 'bundler'] },
];

for (const { name, file, options } of KINDS) {
  test.serial(`a program of kind ${name} compiles in strict mode`, async (t) => {
    const dir = mkdtempSync(join(tmpdir(), 'heliostat-types-'));
    mkdirSync(join(dir, 'node_modules/@types'), { recursive: true });
    symlinkSync(ROOT, join(dir, 'node_modules/heliostat'));
    symlinkSync(join(ROOT, 'node_modules/@types/node'), join(dir, 'node_modules/@types/node'));
    writeFileSync(join(dir, file), PROGRAM);
    const strict = [
      '--strict',
      '--noEmit',
      '--target',
      'es2022',
      '--exactOptionalPropertyTypes',
      '--skipLibCheck',
      'false',
      '--types',
      'node',
    ];
    const result = await run(process.execPath, [TSC, ...strict, ...options, file], { cwd: dir }).catch(
      (error) => error,
    );
    t.is(result.stdout, '');
  });
}
