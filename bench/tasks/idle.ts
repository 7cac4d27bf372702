/** What an idle worker holds, beside a Node process that does nothing. */
import { type ChildProcess, spawn } from 'node:child_process';
import { get, init, remote, shutdown, state } from 'heliostat';
import { median } from '../report.ts';
import { type Add, plain, withGoal } from './figures.ts';
import { pause, pss } from './processes.ts';
import { expect } from './sizes.ts';

const WORKERS = 2;
const MIB = 1024 * 1024;
const MORE_MIB = 15;
/** Time to come to rest. */
const SETTLE_MS = 2_000;
/** Ends by itself, where nobody is left to end it. */
const NOTHING = 'setTimeout(() => {}, 60_000)';

const echo = remote(function echo(value: number) {
  return value;
});

export async function measure(add: Add): Promise<void> {
  const nodes: ChildProcess[] = Array.from({ length: WORKERS }, () =>
    spawn(process.execPath, ['-e', NOTHING], { stdio: 'ignore' }),
  );
  try {
    await init({ numCpus: WORKERS });
    for (const [i, value] of (await get(Array.from({ length: 100 }, (_, i) => echo.remote(i)))).entries()) {
      expect('a result', value, i);
    }
    await pause(SETTLE_MS);
    const workers = await state.listWorkers();
    // Pages of Node itself count for each process in part: all are looked at while all are there.
    const held = (pids: (number | undefined)[]) => median(pids.map((pid) => pss(pid as number))) / MIB;
    const node = held(nodes.map((one) => one.pid));
    const worker = held(workers.map((one) => one.pid));
    add(plain('PSS of a Node process that does nothing', node, 'MiB'));
    const name = `PSS of an idle worker, of ${workers.length}`;
    add(withGoal({ name, measured: worker, unit: 'MiB', better: 'less' }, node + MORE_MIB, 'goal: Node and 15 MiB'));
    add(
      plain(
        'PSS of the driver with its daemon',
        pss('self') / MIB,
        'MiB',
        'with tsx, which the benchmarks run through',
      ),
    );
  } finally {
    for (const one of nodes) one.kill('SIGKILL');
    await shutdown();
  }
}
