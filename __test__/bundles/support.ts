/** The fixture program, compiled and run by the real tools in a directory of its own. */
import { execFile, execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { ExecutionContext } from 'ava';
import { modulesOf, testWith } from '../support/tools.js';

const run = promisify(execFile);
const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const FIXTURES = fileURLToPath(new URL('fixtures/', import.meta.url));

export const each: ReturnType<typeof testWith> = testWith('compilers', 'nodes');
const COMPILERS = modulesOf('compilers');

/** A program's directory. */
export interface Project {
  readonly dir: string;
  /** Runs a tool of the set in it, or a file of it, with Node. */
  node(...args: string[]): string;
}

/** A project with the fixture's sources in `src`, in which `heliostat` is this repository. */
export function makeProject(t: ExecutionContext, type: 'commonjs' | 'module'): Project {
  const dir = mkdtempSync(join(tmpdir(), 'heliostat-bundles-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  cpSync(FIXTURES, join(dir, 'src'), { recursive: true });
  writeFileSync(join(dir, 'package.json'), JSON.stringify({ name: 'app', private: true, type }));
  const modules = join(dir, 'node_modules');
  mkdirSync(modules);
  symlinkSync(ROOT, join(modules, 'heliostat'));
  for (const name of readdirSync(COMPILERS)) symlinkSync(join(COMPILERS, name), join(modules, name));
  const { NODE_OPTIONS: _, ...env } = process.env;
  return { dir, node: (...args) => execFileSync(process.execPath, args, { cwd: dir, env, encoding: 'utf8' }) };
}

/** What the program found. */
export interface Result {
  readonly rows: [name: string, there: unknown, here: unknown][];
  readonly stacks: [main: string, prices: string];
}

/** Runs the program, whose tasks must do what its functions do; gives the stacks of what they threw. */
export async function passes(
  t: ExecutionContext,
  { dir }: Project,
  args: string[],
  { node = process.execPath, snapshots = false }: { node?: string; snapshots?: boolean } = {},
): Promise<Result['stacks']> {
  const { NODE_OPTIONS: _, ...env } = process.env;
  const { stdout } = await run(node, args, { cwd: dir, env, maxBuffer: 1e8 });
  const line = stdout.split('\n').find((text) => text.startsWith('RESULT '));
  if (line === undefined) throw new Error(`no result:\n${stdout}`);
  const { rows, stacks } = JSON.parse(line.slice('RESULT '.length)) as Result;
  t.is(rows.length, 12);
  for (const [name, there, here] of rows) {
    // Compiled CommonJS makes of a variable that is assigned a property of `exports`: the value at the first call.
    if (name === 'state of a module' && snapshots) t.deepEqual([there, here], [0, 1]);
    else t.deepEqual(there, here, name);
  }
  return stacks;
}

/** Both stacks begin with the lines of the sources that throw. */
export function showLines(t: ExecutionContext, [main, prices]: Result['stacks']): void {
  for (const [file, stack] of [
    ['main.ts', main],
    ['prices.ts', prices],
  ] as const) {
    const lines = readFileSync(join(FIXTURES, file), 'utf8').split('\n');
    const line = lines.findIndex((text) => text.includes('// thrown in')) + 1;
    const frame = stack.split('\n').find((text) => text.startsWith('    at ')) ?? '';
    // webpack's names of sources may end in a hash.
    t.regex(frame, new RegExp(`${file.replace('.', '\\.')}(\\?\\w+)?:${line}:`), stack);
  }
}
