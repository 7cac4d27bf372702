/** The program of a worker process: runs the tasks that arrive, one at a time. */

import type { RawTask, RawValue } from '#native' with { 'resolution-mode': 'import' };
import { clearTimeout, now, setImmediate, setTimeout } from '../clock.cjs';
import { abortedRun, setRunning, TaskRun, tellAborted } from '../context.cjs';
import { native } from '../native.cjs';
// References that arrive can be read whether or not the task's code imports the package.
import '../objects.cjs';
import { setAbortHandler, setTaskHandler, startWorker } from '../runtime.cjs';
import { fromRaw, letGarbageGo, type Scratch, scratch } from '../transfer.cjs';
import { views } from '../writes.cjs';
import { forget, functionOf } from './functions.cjs';
import { produce } from './items.cjs';
import { addFailures, addResults, refuseWrites } from './results.cjs';
import { type ErrorClass, isOneOf } from './retries.cjs';
import { runSmall } from './small.cjs';
import { waitForRoom } from './streams.cjs';

const socket = process.env['HELIOSTAT_SOCKET'] ?? '';
const token = process.env['HELIOSTAT_WORKER_TOKEN'] ?? '';
native.setMarker(process.env['HELIOSTAT_MARKER'] ?? '');
// Programs that tasks start are not workers.
for (const name of ['HELIOSTAT_SOCKET', 'HELIOSTAT_WORKER_TOKEN', 'HELIOSTAT_MARKER']) delete process.env[name];

waitForRoom();
const { nodeId } = startWorker(socket, token);

async function valueFrom(raw: RawValue): Promise<unknown> {
  if (raw.buffers.length > 0) views.given = true;
  return (await fromRaw(raw)).value;
}

async function argumentsOf(task: RawTask): Promise<unknown[]> {
  const args = (await valueFrom(task.args)) as unknown[];
  for (const [index, position] of task.positions.entries()) {
    const raw = task.values[index];
    if (raw !== undefined) args[position] = await valueFrom(raw);
  }
  return args;
}

/** Runs a task and hands its results, or its failure, over. */
async function run(task: RawTask): Promise<void> {
  const context = new TaskRun(task.execution, task);
  setRunning(context);
  let nanos = 0;
  let again = false;
  const judge = (thrown: unknown, retries: ErrorClass[] | undefined) => {
    again = task.retriesErrors && isOneOf(thrown, retries);
  };
  try {
    const { fn, retries } = await functionOf(task.function);
    const args = await argumentsOf(task);
    context.throwIfAborted();
    if (task.timed) native.beginTask(task.execution);
    const started = process.hrtime.bigint();
    try {
      let result: unknown;
      try {
        result = await fn(...args);
      } catch (thrown) {
        judge(thrown, retries);
        throw thrown;
      }
      if (task.streams) {
        await produce(context, result, { onThrown: (thrown) => judge(thrown, retries) });
        result = undefined;
      }
      // Nobody takes the results of an aborted run.
      context.throwIfAborted();
      refuseWrites();
      addResults(task, result);
    } finally {
      nanos = Number(process.hrtime.bigint() - started);
    }
  } catch (thrown) {
    addFailures(task, thrown, nodeId);
  } finally {
    setRunning(undefined);
    clearTimeout(overdue);
  }
  native.finishTask(task.execution, nanos, again);
}

/** How long the code of an aborted run may go on; that of a synchronous one is not measured here. */
const GRACE_MS = 1_000;
let overdue: NodeJS.Timeout | undefined;

setAbortHandler(() => {
  tellAborted();
  // Or a blocking wait has told it before.
  const run = abortedRun();
  if (run === undefined) return;
  clearTimeout(overdue);
  overdue = setTimeout(() => {
    if (abortedRun() === run) native.overdueTask(run.execution);
  }, GRACE_MS);
});

/** A worker that had nothing to do for this long lets go of what its last tasks left behind. */
const IDLE_MS = 30;
/** Tasks follow each other without a turn of the event loop for so long. */
const TURN_MS = 10;
/** What `nextSmall` says when there is no task. */
const NONE = -1;
/** The same when the next one takes the other way. */
const OTHER = -2;

let busy = false;
let idle: NodeJS.Timeout | undefined;

/** What ended tasks read from the store is kept in place until their garbage is collected: done here, where nobody waits. */
function tidy(): void {
  if (!busy && native.heldBytes() > 0) letGarbageGo();
}

/** Runs what there is; a promise when it takes longer than this turn of the event loop. */
function work(): Promise<void> | undefined {
  const began = now();
  for (let count = 1; ; count++) {
    const length = scratch === undefined ? OTHER : native.nextSmall();
    if (length === NONE) return undefined;
    let pending: Promise<void> | undefined;
    if (length >= 0) pending = runSmall(scratch as Scratch, length, nodeId);
    else {
      const task = native.nextTask();
      if (task === undefined) return undefined;
      pending = run(task);
    }
    if (pending !== undefined) return pending.then(work);
    if (count % 16 === 0 && now() - began > TURN_MS)
      return new Promise<void>((resolve) => setImmediate(resolve)).then(work);
  }
}

function rest(): void {
  busy = false;
  if (views.given) idle = setTimeout(tidy, IDLE_MS);
}

setTaskHandler(() => {
  if (busy) return;
  busy = true;
  clearTimeout(idle);
  forget();
  let pending: Promise<void> | undefined;
  try {
    pending = work();
  } catch (error) {
    rest();
    throw error;
  }
  if (pending === undefined) rest();
  else void pending.finally(rest);
});
