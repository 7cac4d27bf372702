/** Cancelling tasks: by their references, and by the signals that they were submitted with. */
import * as check from './check.cjs';
import { native } from './native.cjs';
import { handleOf, ObjectRef } from './object-ref.cjs';
import { current } from './runtime.cjs';
import { ObjectRefGenerator } from './streams.cjs';
import { translated } from './transfer.cjs';

/**
 * Cancels the task that makes a reference's object, or a generator's items. Waiting gets throw TaskCancelledError at once, whether the task
 * waited, was queued, or runs. Code that runs sees its context's signal aborted, and its pending gets and waits reject;
 * synchronous code runs on to its end unless `force` kills the worker. An asynchronous task that goes on for a second
 * after its signal aborted ends with its worker. `recursive` (default true) also cancels the tasks that it submitted.
 * Nothing happens when the task has ended.
 *
 * @example
 * const ref = remote(async () => {
 *   const { signal } = getRuntimeContext();
 *   return (await fetch('https://example.org', { signal })).text();
 * }).remote();
 * await cancel(ref);
 * await ref.get(); // throws TaskCancelledError
 */
export async function cancel(
  ref: ObjectRef | ObjectRefGenerator<any>,
  options?: { force?: boolean; recursive?: boolean },
): Promise<void> {
  const of = ref instanceof ObjectRefGenerator ? ref.completed : ref;
  if (!(of instanceof ObjectRef))
    throw new TypeError(`cancel() takes an ObjectRef or an ObjectRefGenerator, got ${check.describe(ref)}`);
  check.options(options, "cancel()'s options");
  check.boolean(options?.force, 'force');
  check.boolean(options?.recursive, 'recursive');
  current();
  const { force = false, recursive = true } = options ?? {};
  translated(() => native.cancel(handleOf(of), force, recursive));
}

/** Tasks that end with a signal, by the id of one of their references. */
interface Watch {
  ids: Set<string>;
  /** Ended tasks are looked for when there are so many. */
  limit: number;
}

const watches = new WeakMap<AbortSignal, Watch>();
const FIRST_LIMIT = 64;

/** Cancels a task when a signal is aborted. One listener serves all tasks of a signal, and ended ones are forgotten. */
export function cancelOnAbort(signal: AbortSignal, ref: ObjectRef): void {
  let watch = watches.get(signal);
  if (watch === undefined) {
    const made = { ids: new Set<string>(), limit: FIRST_LIMIT };
    signal.addEventListener('abort', () => native.cancelTasks([...made.ids]), { once: true });
    watches.set(signal, made);
    watch = made;
  }
  watch.ids.add(ref.id);
  if (watch.ids.size <= watch.limit) return;
  const ids = [...watch.ids];
  for (const [index, unfinished] of native.unfinished(ids).entries()) {
    if (!unfinished) watch.ids.delete(ids[index] as string);
  }
  watch.limit = Math.max(FIRST_LIMIT, 2 * watch.ids.size);
}
