/** Runs the fixture project under a real test runner, in a directory of its own. */
import { type ChildProcess, spawn } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ExecutionContext } from 'ava';
import { eventually } from '../support/cluster.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const FIXTURE = fileURLToPath(new URL('fixtures/project/', import.meta.url));
/** Where `node scripts/runners.mjs` installs them. */
const RUNNERS = join(ROOT, 'target/runners/node_modules');

const PROGRAMS = { vitest: 'vitest/vitest.mjs', jest: 'jest/bin/jest.js' };

/** Whether the runners are there; they are no dependencies of this package. */
export const installed: boolean = existsSync(join(RUNNERS, '.complete'));

/** One run of the tests, as the project's reporters tell it. */
export interface Run {
  passed: number;
  failures: string[];
}

export interface Project {
  dir: string;
  /** Runs so far. */
  runs(): Run[];
  /** Everything it wrote, for a message. */
  output(): string;
  child: ChildProcess;
  end: Promise<number | null>;
}

/** What the project is made of and how it is run. */
export interface Setup {
  runner: keyof typeof PROGRAMS;
  arguments: string[];
  /** The extension that its sources get. */
  extension: 'js' | 'ts';
  type: 'commonjs' | 'module';
  env?: Record<string, string>;
  without?: string[];
}

/** Starts a runner on a copy of the project, in which `heliostat` is this repository. */
export function start(t: ExecutionContext, setup: Setup): Project {
  const dir = mkdtempSync(join(tmpdir(), 'heliostat-runners-'));
  cpSync(FIXTURE, dir, { recursive: true });
  for (const name of setup.without ?? []) rmSync(join(dir, name));
  for (const name of readdirSync(dir)) {
    if (name.endsWith('.js')) renameSync(join(dir, name), join(dir, name.replace(/js$/, setup.extension)));
  }
  writeFileSync(join(dir, 'package.json'), JSON.stringify({ private: true, type: setup.type }));
  const compilerOptions = { module: 'CommonJS', target: 'ES2022', esModuleInterop: true, isolatedModules: true };
  writeFileSync(join(dir, 'tsconfig.json'), JSON.stringify({ compilerOptions }));
  const modules = join(dir, 'node_modules');
  mkdirSync(modules);
  symlinkSync(ROOT, join(modules, 'heliostat'));
  for (const name of readdirSync(RUNNERS)) symlinkSync(join(RUNNERS, name), join(modules, name));
  // A directory of its own for sessions and caches shows what is left of them.
  const temp = join(dir, 'tmp');
  mkdirSync(temp);

  const { NODE_OPTIONS: _, ...env } = process.env;
  const child = spawn(process.execPath, [join(RUNNERS, PROGRAMS[setup.runner]), ...setup.arguments], {
    cwd: dir,
    env: { ...env, TMPDIR: temp, FORCE_COLOR: '0', CI: '', ...setup.env },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (output += data));
  const end = new Promise<number | null>((resolve) => child.on('close', resolve));
  t.teardown(async () => {
    child.kill('SIGKILL');
    await end;
    rmSync(dir, { recursive: true, force: true });
  });
  const runs = () => [...output.matchAll(/^RUN (.*)$/gm)].map(([, json]) => JSON.parse(json as string) as Run);
  return { dir, child, end, runs, output: () => output };
}

/** The directories of sessions that are left. */
export function sessions({ dir }: Project): string[] {
  const temp = join(dir, 'tmp');
  return readdirSync(temp)
    .filter((name) => /^heliostat-\d+$/.test(name))
    .flatMap((name) => readdirSync(join(temp, name)));
}

/** Waits for the n-th run of a project that watches. */
export async function run(project: Project, count: number): Promise<Run> {
  await eventually(
    () => `run ${count} of the tests; so far:\n${project.output()}`,
    () => project.runs().length >= count || project.child.exitCode !== null,
  );
  const found = project.runs()[count - 1];
  if (found === undefined) throw new Error(`the runner ended without a run ${count}:\n${project.output()}`);
  return found;
}
