/**
 * Runs the benchmarks, each in a process of its own so that none finds another's workers or memory warm, and closes with all
 * figures as one line of JSON. A new benchmark is a file beside this one, named in SUITES.
 */
import { fork } from 'node:child_process';
import { machine, type Row } from './report.ts';

const SUITES = ['core', 'store', 'tasks', 'streams', 'values', 'functions', 'batch-inference', 'spilling'];

interface Result {
  readonly rows: readonly Row[];
}

function runSuite(name: string): Promise<Result> {
  console.error(`▸ ${name}`);
  return new Promise((resolve, reject) => {
    let report: Result | undefined;
    const suite = fork(new URL(`${name}.ts`, import.meta.url), { execArgv: process.execArgv });
    suite.once('message', (message) => {
      report = message as Result;
    });
    suite.once('error', reject);
    suite.once('exit', (code, signal) => {
      if (code === 0 && report) resolve(report);
      else reject(new Error(`${name} ended with ${signal ?? code}`));
    });
  });
}

const names = process.argv.length > 2 ? process.argv.slice(2) : SUITES;
const suites: Record<string, Result> = {};
for (const name of names) {
  if (!SUITES.includes(name)) throw new Error(`no benchmark ${name}; there are ${SUITES.join(', ')}`);
  suites[name] = await runSuite(name);
}
const rounded = (_: string, value: unknown) => (typeof value === 'number' ? Number(value.toPrecision(4)) : value);
console.log(`\n${JSON.stringify({ machine: machine(), suites }, rounded)}`);

// A suite may go on after one of its cases failed; the figures are printed all the same.
const failed = Object.values(suites).flatMap(({ rows }) => rows.filter((row) => 'failed' in row));
for (const row of failed) console.error(`✘ ${row.name}: ${row['failed']}`);
if (failed.length) process.exitCode = 1;
