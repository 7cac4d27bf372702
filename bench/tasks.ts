/**
 * Tasks and references, each figure with its goal: what a call costs beside the pools that a program could use instead, what many
 * references cost, how fast it starts and comes back after a death.
 *
 *   HELIOSTAT_CASES=calls,chain   only these
 *   HELIOSTAT_LONG=1              1,000,000 queued tasks instead of 100,000; arguments and results as large as in Ray's tests
 *   HELIOSTAT_QUICK=1             small counts, to see that it runs: such figures mean nothing
 *
 * Each case has a process of its own, so that none finds another's memory; within a case the contestants take turns. "times better"
 * says how many times better Heliostat is than the goal, the rival or the published figure of that line.
 */
import { fork } from 'node:child_process';
import { Report } from './report.ts';
import type { Message } from './tasks/run.ts';
import { LONG, QUICK } from './tasks/sizes.ts';

const CASES = ['calls', 'chain', 'references', 'queue', 'memory', 'arrays', 'start', 'deaths', 'idle'];
/** How Node ends a program that waits for what nothing is left to settle. */
const RAN_DRY = 13;
/** A case that takes longer hangs. */
const LIMIT_MINUTES = Number(process.env['HELIOSTAT_LIMIT_MINUTES'] ?? (LONG ? 30 : 10));

const wanted = process.env['HELIOSTAT_CASES']?.split(',') ?? CASES;
const unknown = wanted.filter((name) => !CASES.includes(name));
if (unknown.length) throw new Error(`no case ${unknown.join(', ')} in HELIOSTAT_CASES; there are ${CASES.join(', ')}`);

const report = new Report(`Tasks and references${QUICK ? ', a QUICK run: the figures mean nothing' : ''}`);
for (const name of wanted) await runCase(name);
report.finish();

/** A case that fails gets a line that says so; the others are measured all the same. */
function runCase(name: string): Promise<void> {
  process.stderr.write(` ${name}\n`);
  return new Promise((resolve) => {
    let failure: string | undefined;
    const child = fork(new URL('tasks/run.ts', import.meta.url), [name], { execArgv: process.execArgv });
    const limit = setTimeout(() => {
      failure = `not over after ${LIMIT_MINUTES} minutes`;
      child.kill('SIGKILL');
    }, LIMIT_MINUTES * 60_000);
    child.on('message', (message: Message) => {
      if ('row' in message) report.add(message.row);
      else failure = message.failed;
    });
    child.once('exit', (code, signal) => {
      clearTimeout(limit);
      if (code === RAN_DRY) failure ??= 'waited with nothing left in its event loop';
      if (code !== 0) report.add({ name, failed: failure ?? `ended with ${signal ?? code}` });
      resolve();
    });
  });
}
