/** The price of making functions remote, in fresh processes with few and with many scripts of their own. */
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { median, Report } from './report.ts';

const PROGRAM = fileURLToPath(new URL('functions-program.mjs', import.meta.url));
const RUNS = 7;

interface Run {
  firstCall: number;
  furtherCalls: number[];
  secondCalls: number[];
  enable: number;
  known: number;
  before: number;
  after: number;
}

const report = new Report('Functions by value, milliseconds (medians of fresh processes)');

for (const scripts of [30, 1000]) {
  for (const [when, name] of [
    ['at once', 'right after init()'],
    ['later', 'half a second after init()'],
  ] as const) {
    const runs = Array.from({ length: RUNS }, (): Run => {
      const stdout = execFileSync(process.execPath, [PROGRAM, String(scripts), when], { encoding: 'utf8' });
      return JSON.parse(stdout) as Run;
    });
    const middle = (pick: (run: Run) => number) => median(runs.map(pick));
    report.add({
      name: `${scripts} scripts, ${name}`,
      'first .remote()': middle((run) => run.firstCall),
      'at best': Math.min(...runs.map((run) => run.firstCall)),
      'Debugger.enable': middle((run) => run.enable),
      'a further function': middle((run) => median(run.furtherCalls)),
      'a further call': middle((run) => median(run.secondCalls)),
      'scripts with all packages': middle((run) => run.known),
      'own work before': middle((run) => run.before),
      'own work after': middle((run) => run.after),
    });
  }
}

report.finish();
