/** Calls whose result is a generator: its items go to the caller one by one, as far as there is room for them. */

import { isThenable } from '../check.cjs';
import { type TaskRun, tellAborted } from '../context.cjs';
import { SerializationError, TaskCancelledError } from '../errors.cjs';
import { native } from '../native.cjs';
import { endWait, whenOver } from '../runtime.cjs';
import { withParts, writeSmall } from '../transfer.cjs';
import { withStored } from './results.cjs';

/** Whether the next item may be made: see `room` of the addon. */
type Room = 0 | 1 | 2;
const FULL = 1;
const UNWANTED = 2;

export interface ProduceOptions {
  /** Called with what the generator itself threw, not for an item that cannot be sent. */
  onThrown?: (thrown: unknown) => void;
  /** Whether a synchronous generator waits for room by blocking the thread; else it waits as an asynchronous one does. */
  blocks?: boolean;
}

/**
 * Hands over all items of what a call returned: of a generator, or whatever else can be iterated. Whoever made the call
 * ends it afterwards, without a value or with what this throws. When nobody wants further items, or one cannot be sent,
 * the generator's finally blocks run.
 */
export async function produce(run: TaskRun, returned: unknown, options: ProduceOptions = {}): Promise<void> {
  const { blocks = true, onThrown } = options;
  const source = sourceOf(returned, run.name);
  const progress = { handingOver: false };
  try {
    if (blocks && 'items' in source) produceNow(run, source.items, progress);
    else await produceLater(run, 'items' in source ? source.items : source.later, progress);
  } catch (thrown) {
    if (!progress.handingOver) onThrown?.(thrown);
    throw thrown;
  }
  if (!progress.handingOver) return;
  // The run is over before its end.
  run.throwIfAborted();
  throw new TaskCancelledError(`${run.name}() was cancelled`);
}

/** Set while an item is in our hands, not the generator's. */
interface Progress {
  handingOver: boolean;
}

function produceNow({ execution }: TaskRun, items: Iterable<unknown>, progress: Progress): void {
  for (const item of items) {
    progress.handingOver = true;
    let room = handOver(execution, item);
    if (room === FULL) room = native.blockRoom(execution);
    if (isUnwanted(room)) return;
    progress.handingOver = false;
  }
}

async function produceLater(
  { execution }: TaskRun,
  items: Iterable<unknown> | AsyncIterable<unknown>,
  progress: Progress,
): Promise<void> {
  for await (const item of items) {
    progress.handingOver = true;
    let room = handOver(execution, item);
    while (room === FULL) room = await roomFor(execution);
    if (isUnwanted(room)) return;
    progress.handingOver = false;
  }
}

function isUnwanted(room: Room): boolean {
  if (room !== UNWANTED) return false;
  // The generator's finally blocks, which run next, see that the signal has aborted.
  tellAborted();
  return true;
}

async function roomFor(execution: number): Promise<Room> {
  const room = native.room(execution);
  if (room !== FULL) return room;
  const wait = native.waitRoom(execution);
  if (wait >= 0) {
    await new Promise<void>((resolve) => whenOver(wait, resolve));
    endWait(wait);
  }
  return native.room(execution);
}

function handOver(execution: number, item: unknown): Room {
  if (isThenable(item)) {
    throw new SerializationError(
      'cannot send $: the item has a method `then`, so that a get would take it for a promise',
      {
        hint: 'make the function an async generator, or await the item before it is yielded',
      },
    );
  }
  const written = writeSmall(item);
  if (typeof written === 'number') return native.pushSmall(execution, written);
  return withStored(item, written, (encoded) => withParts(encoded, (...parts) => native.pushItem(execution, ...parts)));
}

type Source = { items: Iterable<unknown> } | { later: AsyncIterable<unknown> };

function sourceOf(returned: unknown, name: string): Source {
  if (typeof returned === 'object' && returned !== null) {
    const { next } = returned as { next?: unknown };
    if (Symbol.asyncIterator in returned) return { later: returned as AsyncIterable<unknown> };
    if (Symbol.iterator in returned) return { items: returned as Iterable<unknown> };
    // An iterator that cannot be iterated: its steps may be promises.
    if (typeof next === 'function')
      return { later: { [Symbol.asyncIterator]: () => returned as AsyncIterator<unknown> } };
  }
  throw new TypeError(
    `${name}() is called with streaming: true and must return an iterator, but returned ${returned === null ? 'null' : typeof returned}`,
  );
}
