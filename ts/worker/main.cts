/** The program of a worker process: runs the tasks that arrive, one at a time. */

import type { RawTask } from '#native' with { 'resolution-mode': 'import' };
import { setRunning } from '../context.cjs';
import { describeThrown, substitute, type Thrown } from '../failures.cjs';
import { native } from '../native.cjs';
import { withRoom } from '../room.cjs';
import { setTaskHandler, startWorker } from '../runtime.cjs';
import { fromRaw, letGarbageGo, type Take, withEncoded } from '../transfer.cjs';
import { readOnly, writesOfTask } from '../writes.cjs';

type AnyFunction = (...args: unknown[]) => unknown;

const socket = process.env['HELIOSTAT_SOCKET'] ?? '';
const token = process.env['HELIOSTAT_WORKER_TOKEN'] ?? '';
const marker = process.env['HELIOSTAT_MARKER'] ?? '';
// Programs that tasks start are not workers.
for (const name of ['HELIOSTAT_SOCKET', 'HELIOSTAT_WORKER_TOKEN', 'HELIOSTAT_MARKER']) delete process.env[name];

const { nodeId } = startWorker(socket, token);

/** Functions by the hexadecimal digits of their hash: revived once, so that what they hold lasts between tasks. */
const functions = new Map<string, AnyFunction>();

function keyOf(hash: Uint8Array): string {
  return Buffer.from(hash).toString('hex');
}

async function functionOf(hash: Uint8Array): Promise<AnyFunction> {
  const key = keyOf(hash);
  let fn = functions.get(key);
  if (fn === undefined) {
    const raw = native.functionValue(hash);
    if (raw === undefined) throw new Error('the function of this task did not arrive');
    fn = (await fromRaw(raw)).value as AnyFunction;
    functions.set(key, fn);
  }
  return fn;
}

async function argumentsOf(task: RawTask): Promise<unknown[]> {
  const args = (await fromRaw(task.args)).value as unknown[];
  for (const [index, position] of task.positions.entries()) {
    const raw = task.values[index];
    if (raw !== undefined) args[position] = (await fromRaw(raw)).value;
  }
  return args;
}

/** Runs a task and hands its results, or its failure, over. */
async function run(task: RawTask): Promise<void> {
  forget();
  native.markOutput(marker, task.name);
  setRunning({ ...task, abort: new AbortController() });
  let nanos = 0;
  try {
    const fn = await functionOf(task.function);
    const args = await argumentsOf(task);
    const started = process.hrtime.bigint();
    try {
      const result = await fn(...args);
      const written = writesOfTask()[0];
      if (written !== undefined) throw readOnly(written);
      addResults(task, result);
    } finally {
      nanos = Number(process.hrtime.bigint() - started);
    }
  } catch (thrown) {
    native.dropResults(task.execution);
    // What it wrote before it failed must be healed before the next task reads there.
    writesOfTask();
    addFailures(task, describeThrown(thrown, { name: task.name, attempt: task.attempt, nodeId }));
  } finally {
    setRunning(undefined);
  }
  native.finishTask(task.execution, nanos);
}

function addResults(task: RawTask, result: unknown): void {
  if (task.returns < 0) {
    addResult(task, result);
    return;
  }
  if (!Array.isArray(result) || result.length !== task.returns) {
    const got = Array.isArray(result) ? `an array of ${result.length}` : typeof result;
    throw new TypeError(
      `${task.name}() must return an array of ${task.returns} for numReturns: ${task.returns}, but returned ${got}`,
    );
  }
  for (const item of result) addResult(task, item);
}

function addResult(task: RawTask, value: unknown): void {
  withRoom(() => withEncoded(value, (...parts) => native.addResult(task.execution, ...parts)));
}

const NOTHING = new Uint8Array(0);

function addFailures(task: RawTask, thrown: Thrown): void {
  const facts = Object.entries(thrown.facts).flat();
  for (let index = 0; index < Math.max(1, task.returns); index += 1) {
    const add: Take<void> = (...parts) =>
      native.addFailure(task.execution, thrown.code, thrown.message, facts, ...parts);
    if (!('cause' in thrown)) add(NOTHING, 0, [], []);
    else {
      try {
        withEncoded(thrown.cause, add);
      } catch {
        // What was thrown cannot be sent: its text can.
        withEncoded(substitute(thrown.cause), add);
      }
    }
  }
}

/** Drops functions that nobody will call any more. */
function forget(): void {
  for (const hash of native.takeForgotten() ?? []) functions.delete(keyOf(hash));
}

/** A worker that had nothing to do for this long lets go of what its last tasks left behind. */
const IDLE_MS = 30;

let busy = false;
let idle: NodeJS.Timeout | undefined;

/** What ended tasks read from the store is kept in place until their garbage is collected: done here, where nobody waits. */
function tidy(): void {
  if (!busy && native.heldBytes() > 0) letGarbageGo();
}

async function work(): Promise<void> {
  if (busy) return;
  busy = true;
  clearTimeout(idle);
  forget();
  try {
    for (let task = native.nextTask(); task !== undefined; task = native.nextTask()) await run(task);
  } finally {
    busy = false;
    idle = setTimeout(tidy, IDLE_MS);
  }
}

setTaskHandler(() => void work());
