/** How long a program waits for its first result. */
import { fork, spawn } from 'node:child_process';
import { once } from 'node:events';
import { median, quantile } from '../report.ts';
import { type Add, plain, withGoal } from './figures.ts';
import { count, expect } from './sizes.ts';

const RUNS = count(15, 2);
const GOAL = 300;

interface First {
  readonly result: number;
  readonly initialised: number;
  readonly milliseconds: number;
}

async function run(): Promise<First> {
  const program = fork(new URL('programs/first-result.mjs', import.meta.url), { execArgv: [] });
  const exit = once(program, 'exit');
  const message = once(program, 'message').then(([first]) => first as First);
  const [code, signal] = await exit;
  if (code !== 0) throw new Error(`a program that waits for its first result ended with ${signal ?? code}`);
  return message;
}

/** A Node process that does nothing, from its start to its end: the least that a worker's start can take on this machine now. */
async function runNothing(): Promise<number> {
  const started = performance.now();
  await once(spawn(process.execPath, ['-e', ''], { stdio: 'ignore' }), 'exit');
  return performance.now() - started;
}

export async function measure(add: Add): Promise<void> {
  const runs: First[] = [];
  const nothing: number[] = [];
  // The first run reads the files.
  for (let i = 0; i <= RUNS; i++) {
    const first = await run();
    expect('the first result', first.result, 42);
    const least = await runNothing();
    if (i === 0) continue;
    runs.push(first);
    nothing.push(least);
  }
  const times = runs.map((first) => first.milliseconds);
  const first = { name: 'init() to the first result of a closure', measured: median(times), unit: 'ms' };
  add(withGoal({ ...first, better: 'less' }, GOAL));
  add(plain('  the slowest run', quantile(times, 1), 'ms'));
  add(plain('  of that init()', median(runs.map((one) => one.initialised)), 'ms'));
  add(plain('  a Node process that does nothing, in turns', median(nothing), 'ms'));
}
