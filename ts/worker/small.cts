/**
 * The short way of a task whose arguments and result are small: they pass through the scratch memory, and a function that
 * returns at once is called without a promise.
 */
import { isThenable } from '../check.cjs';
import { setRunning, TaskRun } from '../context.cjs';
import { native } from '../native.cjs';
import { fromHeader, type Scratch, writeSmall } from '../transfer.cjs';
import { NOT_PLAIN } from '../values/primitives.cjs';
import { views } from '../writes.cjs';
import { type Callable, functionOf, revived } from './functions.cjs';
import { addFailures, addResult, refuseIterator, refuseWrites } from './results.cjs';

/** Bytes before a task's arguments: its number, its function's, how many go by reference, length of the others. */
const HEAD = 16;
/** Bytes before an argument by reference: its position and length. */
const ENTRY = 8;

/** Runs the task of so many bytes that native code wrote into the scratch memory; a promise when it takes longer. */
export function runSmall({ bytes, words, plain }: Scratch, length: number, nodeId: string): Promise<void> | undefined {
  const execution = words.getUint32(0, true);
  const number = words.getUint32(4, true);
  const byRef = words.getUint32(8, true);
  const end = HEAD + words.getUint32(12, true);
  const run = new TaskRun(execution);
  setRunning(run);
  const callable = revived(number);
  const args = byRef === 0 && callable !== undefined ? plain.readArray(HEAD, end) : NOT_PLAIN;
  // Whatever is not simple is read from a copy: reading it may run code that uses the memory.
  if (args === NOT_PLAIN) return runLate(run, number, bytes.slice(0, length), end, byRef, nodeId);
  return call(run, callable as Callable, args, nodeId);
}

async function runLate(
  run: TaskRun,
  number: number,
  task: Uint8Array,
  end: number,
  byRef: number,
  nodeId: string,
): Promise<void> {
  try {
    const callable = await functionOf(number);
    const args = (await fromHeader(task.subarray(HEAD, end))).value as unknown[];
    const words = new DataView(task.buffer, task.byteOffset);
    let at = end;
    for (let index = 0; index < byRef; index++) {
      const position = words.getUint32(at, true);
      const first = at + ENTRY;
      at = first + words.getUint32(at + 4, true);
      args[position] = (await fromHeader(task.subarray(first, at))).value;
    }
    run.throwIfAborted();
    await call(run, callable, args, nodeId);
  } catch (thrown) {
    fail(run, thrown, nodeId);
  }
}

function call(run: TaskRun, { fn }: Callable, args: unknown[], nodeId: string): Promise<void> | undefined {
  let result: unknown;
  try {
    result = fn(...args);
    if (isThenable(result)) return settle(run, result, nodeId);
    finish(run, result);
  } catch (thrown) {
    fail(run, thrown, nodeId);
  }
  return undefined;
}

async function settle(run: TaskRun, pending: unknown, nodeId: string): Promise<void> {
  try {
    finish(run, await pending);
  } catch (thrown) {
    fail(run, thrown, nodeId);
  }
}

function finish(run: TaskRun, result: unknown): void {
  // Nobody takes the results of an aborted run.
  run.throwIfAborted();
  if (views.given) refuseWrites();
  refuseIterator(result);
  const { execution } = run;
  const written = writeSmall(result);
  if (typeof written === 'number') {
    setRunning(undefined);
    native.finishSmall(execution, written);
  } else {
    addResult(execution, result, written);
    setRunning(undefined);
    native.finishTask(execution, -1, false);
  }
}

function fail(run: TaskRun, thrown: unknown, nodeId: string): void {
  const { execution, name, attempt } = run;
  setRunning(undefined);
  addFailures({ execution, name, attempt, returns: -1 }, thrown, nodeId);
  native.finishTask(execution, -1, false);
}
