import { appendFileSync, readFileSync } from 'node:fs';
import test from 'ava';
import {
  getRuntimeContext,
  init,
  isHeliostatError,
  type ObjectRef,
  remote,
  shutdown,
  state,
  TaskError,
  type WorkerCrashedError,
} from 'heliostat';
import { descendants, eventually, workerPids } from '../support/cluster.js';
import { alive, Promises, withWatchedCluster } from '../support/promises.js';

// Workers inherit it: a heap that is full soon. (Set before the node starts, which takes its environment then.)
process.env['NODE_OPTIONS'] = '--max-old-space-size=96';
withWatchedCluster(test, { numCpus: 3 });

interface Death {
  name: string;
  die: () => unknown;
  exitCode: number | null;
  exitSignal: string | null;
  says: RegExp[];
}

const deaths: Death[] = [
  {
    name: 'SIGKILL',
    die: () => process.kill(process.pid, 'SIGKILL'),
    exitCode: null,
    exitSignal: 'SIGKILL',
    says: [/^worker pid=\d+ was killed by SIGKILL( \(not by the kernel for want of memory\))? while it ran doomed\(\)/],
  },
  {
    name: 'process.exit',
    die: () => process.exit(3),
    exitCode: 3,
    exitSignal: null,
    says: [/^worker pid=\d+ exited with code 3 while it ran doomed\(\)/],
  },
  {
    name: 'an exception that nobody catches',
    die: () => {
      setTimeout(() => {
        throw new RangeError('from a timer');
      }, 1);
    },
    exitCode: 1,
    exitSignal: null,
    says: [/exited with code 1 while it ran doomed\(\)/, /RangeError: from a timer/],
  },
  {
    name: 'a rejection that nobody handles',
    die: () => void Promise.reject(new RangeError('rejected in vain')),
    exitCode: 1,
    exitSignal: null,
    says: [/exited with code 1 while it ran doomed\(\)/, /RangeError: rejected in vain/],
  },
  {
    name: 'a full JavaScript heap',
    die: () => {
      const all: unknown[] = [];
      for (;;) all.push(Array.from({ length: 1000 }, (_, i) => ({ i })));
    },
    exitCode: null,
    exitSignal: 'SIGABRT',
    says: [
      /was killed by SIGABRT while it ran doomed\(\): its JavaScript heap was out of memory, at its limit with \d+(\.\d+)? MB in use/,
      /FATAL ERROR: .*JavaScript heap out of memory$/,
    ],
  },
  {
    name: 'an overflow of a native stack',
    die: async () => {
      const { execFileSync } = await import('node:child_process');
      // The kernel gives it less than V8 takes for granted.
      execFileSync('prlimit', ['--pid', String(process.pid), '--stack=204800']);
      const down = (): number => down() + 1;
      down();
    },
    exitCode: null,
    exitSignal: 'SIGSEGV',
    says: [/was killed by SIGSEGV while it ran doomed\(\)/],
  },
  {
    name: 'abort',
    die: () => process.abort(),
    exitCode: null,
    exitSignal: 'SIGABRT',
    says: [/was killed by SIGABRT while it ran doomed\(\)/],
  },
];

for (const { name, die, exitCode, exitSignal, says } of deaths) {
  test.serial(`${name}: retried, then told with the facts; others notice nothing`, async (t) => {
    const promises = await Promises.begin(t);
    const bystander = promises.bystander();
    await bystander.goesOn(2);
    const { journal } = promises;
    const doomed = remote(
      async function doomed() {
        appendFileSync(journal, 'doomed\n');
        console.error(`attempt ${getRuntimeContext().attempt} says farewell`);
        await die();
        // Some deaths come a moment later.
        await new Promise((resolve) => setTimeout(resolve, 60_000));
      },
      { maxRetries: 1 },
    );
    const { error } = await promises.settle(doomed.remote());
    if (!isHeliostatError(error, 'WORKER_CRASHED')) return t.fail(`${error}`);
    const crashed = error as WorkerCrashedError;
    t.is(crashed.exitCode, exitCode, crashed.message);
    t.is(crashed.exitSignal, exitSignal, crashed.message);
    for (const part of says) t.regex(crashed.message, part);
    t.regex(crashed.message, /\n {2}attempt 1 says farewell/, 'the lines of the last attempt');
    t.notRegex(crashed.message, /attempt 0/);
    t.is(crashed.hint?.includes('--max-old-space-size') ?? false, name === 'a full JavaScript heap');
    t.deepEqual(promises.executions(), new Map([['doomed', 2]]), 'once, and once more for maxRetries: 1');
    await bystander.goesOn(2);
    await bystander.stop();
    return promises.keep();
  });
}

test.serial('too deep a recursion is an error of the task, not a death', async (t) => {
  const promises = await Promises.begin(t);
  const deep = remote(function deep(): number {
    return deep() + 1;
  });
  const { error } = await promises.settle(deep.remote());
  t.true(error instanceof TaskError && error.cause instanceof RangeError, `${error}`);
  await promises.keep();
});

test.serial('a stopped worker holds nobody up, and its task ends when it goes on', async (t) => {
  const promises = await Promises.begin(t);
  const { journal } = promises;
  const stopped = remote(async function stopped() {
    appendFileSync(journal, 'stopped\n');
    process.kill(process.pid, 'SIGSTOP');
    return process.pid;
  });
  const ref = stopped.remote();
  const outcome = promises.settle(ref);
  const pid = await eventually('the stop', () => {
    const one = descendants(process.pid).find((worker) => stateOf(worker) === 'T');
    return promises.executions().has('stopped') ? one : undefined;
  });
  await longerThanTasksAreSentAhead();
  const bystander = promises.bystander();
  await bystander.goesOn();
  await bystander.stop();
  process.kill(pid, 'SIGCONT');
  t.is((await outcome).value, pid);
  t.deepEqual(promises.executions(), new Map([['stopped', 1]]), 'it was not begun anew');
  await promises.keep();
});

test.serial('a task that never ends holds nobody up, and its worker ends with its driver’s interest', async (t) => {
  const promises = await Promises.begin(t);
  const { journal } = promises;
  const spin = remote(
    function spin(): never {
      appendFileSync(journal, `${process.pid}\n`);
      for (;;);
    },
    { maxRetries: 0 },
  );
  const outcome = promises.settle(spin.remote());
  const pid = Number(await eventually('its begin', () => [...promises.executions().keys()][0]));
  await longerThanTasksAreSentAhead();
  const bystander = promises.bystander();
  await bystander.goesOn();
  await bystander.stop();
  process.kill(pid, 'SIGKILL');
  t.is((await outcome).error?.name, 'WorkerCrashedError');
  await promises.keep();
});

test.serial('shutdown ends tasks that never end', async (t) => {
  await Promises.begin(t);
  const spin = remote(() => {
    for (;;);
  });
  // The second is sent behind the first, perhaps, and goes to another worker then.
  const refs: ObjectRef<never>[] = [spin.remote(), spin.remote()];
  await eventually('two busy workers', async () => {
    const busy = (await state.listWorkers()).filter((worker) => worker.state === 'busy');
    return busy.length === refs.length;
  });
  const workers = await workerPids();
  await shutdown();
  t.deepEqual(workers.filter(alive), []);
  await init({ numCpus: 1, logToDriver: false });
});

/** A task is sent behind another one only while that has not run for long. */
const longerThanTasksAreSentAhead = () => new Promise((resolve) => setTimeout(resolve, 50));

/** The state of a process as the kernel tells it: a letter. */
function stateOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[0];
  } catch {
    return undefined;
  }
}
