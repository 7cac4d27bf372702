/** What becomes of a task: its results, or its failure, handed over to native code. */

import { SerializationError } from '../errors.cjs';
import { describeThrown, substitute, type Thrown } from '../failures.cjs';
import { native } from '../native.cjs';
import { withRoom } from '../room.cjs';
import { type Take, withEncoded, withParts } from '../transfer.cjs';
import { type Encoded, encode } from '../values/index.cjs';
import { readOnly, writesOfTask } from '../writes.cjs';

/** What is said about a task that failed. */
export interface Described {
  execution: number;
  name: string;
  attempt: number;
  /** Its number of results, or -1 for one value. */
  returns: number;
}

/** Fails if the task wrote into data of the store. */
export function refuseWrites(): void {
  const written = writesOfTask()[0];
  if (written !== undefined) throw readOnly(written);
}

/** Hands the results over, without ending the task. */
export function addResults(task: Described, result: unknown): void {
  refuseIterator(result);
  if (task.returns < 0) {
    addResult(task.execution, result);
    return;
  }
  if (!Array.isArray(result) || result.length !== task.returns) {
    const got = Array.isArray(result) ? `an array of ${result.length}` : typeof result;
    throw new TypeError(
      `${task.name}() must return an array of ${task.returns} for numReturns: ${task.returns}, but returned ${got}`,
    );
  }
  for (const item of result) addResult(task.execution, item);
}

/** Refuses the iterator that a call without streaming returned. */
export function refuseIterator(result: unknown): void {
  if (typeof result !== 'object' || result === null) return;
  if (typeof (result as { next?: unknown }).next !== 'function') return;
  if (!(Symbol.iterator in result || Symbol.asyncIterator in result)) return;
  throw new SerializationError('cannot send $: it is an iterator that is under way', {
    hint: 'streaming: true sends its items one by one; or return them in an array',
  });
}

/** Hands one result over, encoded already or not. */
export function addResult(execution: number, value: unknown, encoded?: Encoded): void {
  withStored(value, encoded, (now) => withParts(now, (...parts) => native.addResult(execution, ...parts)));
}

/** Stores a value, encoded already or not. What is tried again for want of room is encoded again. */
export function withStored<R>(value: unknown, encoded: Encoded | undefined, store: (encoded: Encoded) => R): R {
  let first = encoded;
  return withRoom(() => {
    const now = first ?? encode(value);
    first = undefined;
    return store(now);
  });
}

/** Takes results back and hands the failure over instead. */
export function addFailures(task: Described, thrown: unknown, nodeId: string): void {
  native.dropResults(task.execution);
  // What it wrote before it failed must be healed before the next task reads there.
  writesOfTask();
  const { name, attempt } = task;
  addThrown(task, describeThrown(thrown, { name, attempt, nodeId }));
}

const NOTHING = new Uint8Array(0);

function addThrown(task: Described, thrown: Thrown): void {
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
