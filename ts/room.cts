/** Waiting for room in a full store. */
import { threadId } from 'node:worker_threads';
import { now, sleep } from './clock.cjs';
import { ObjectStoreFullError, OutOfDiskError } from './errors.cjs';
import { native, thread } from './native.cjs';
import { biggestSites } from './sites.cjs';
import { letGarbageGo, translated } from './transfer.cjs';

const DEFAULT_PUT_TIMEOUT = 30_000;
/** First and longest wait between two looks at this thread's own garbage, in milliseconds. */
const SLICES = [50, 2000] as const;
/** First and longest pause between two tries that do not block, in milliseconds. */
const PAUSES = [2, 50] as const;

let putTimeout = DEFAULT_PUT_TIMEOUT;

/** Sets how long a put waits for room, in milliseconds. */
export function setPutTimeout(millis: number): void {
  putTimeout = millis;
}

/** Why there is no room: it may come, or a limit was met that garbage may be the cause of, or it will not come. */
type Refusal = 'full' | 'limit' | undefined;

function refusal(error: unknown): Refusal {
  if (error instanceof ObjectStoreFullError) return 'full';
  return (error as { code?: unknown }).code === 'STORE_LIMIT' ? 'limit' : undefined;
}

/** What the program sees. The node says who holds the memory; where this thread made what it holds, it knows itself. */
function final(error: unknown): unknown {
  if (error instanceof OutOfDiskError) {
    error.message += ownSites();
    return error;
  }
  const code = (error as { code?: unknown }).code;
  if (!(error instanceof Error) || (code !== 'STORE_EXHAUSTED' && code !== 'STORE_LIMIT')) return error;
  return new ObjectStoreFullError(error.message + ownSites(), {
    cause: error,
    hint: 'dispose references with `using`, release views, wait with putAsync(), or raise objectStoreMemory',
  });
}

/**
 * Runs a call that takes room in the store. Where there is none, what only garbage of this thread still holds is let go
 * of first: finalizers do not run inside a synchronous loop. Then it waits while others make room, in slices, and looks
 * at its garbage in between.
 */
export function withRoom<R>(call: () => R): R {
  try {
    return translated(call);
  } catch (error) {
    if (refusal(error) === undefined) throw final(error);
  }
  const [first, longest] = SLICES;
  const ticket = nextTicket();
  const end = now() + putTimeout;
  try {
    // Spilling comes before garbage, which takes a collection to be found.
    return patiently(Math.min(longest, putTimeout), ticket, false, call, true);
  } catch (error) {
    if (refusal(error) === undefined) throw final(error);
  }
  for (let slice: number = first; ; slice = Math.min(2 * slice, longest)) {
    letGarbageGo();
    const left = Math.max(0, end - now());
    try {
      return patiently(Math.min(slice, left), ticket, left <= slice, call);
    } catch (error) {
      if (refusal(error) !== 'full' || left <= slice) throw final(error);
    }
  }
}

/** The same without blocking the event loop: it keeps its place in line, and other code of this thread runs meanwhile. */
export async function withRoomSoon<R>(
  call: () => R,
  timeoutMs: number | undefined,
  signal: AbortSignal | undefined,
): Promise<R> {
  const [first, longest] = PAUSES;
  const ticket = nextTicket();
  const end = now() + (timeoutMs ?? putTimeout);
  let collected = false;
  for (let pause: number = first; ; pause = Math.min(2 * pause, longest)) {
    const last = collected && now() >= end;
    try {
      return patiently(0, ticket, last, call);
    } catch (error) {
      const why = refusal(error);
      if (why === undefined || last || (why === 'limit' && collected)) throw final(error);
    }
    if (!collected) {
      collected = true;
      letGarbageGo();
      continue;
    }
    await sleep(Math.max(1, Math.min(pause, end - now())), undefined, signal ? { signal } : {}).catch(() =>
      signal?.throwIfAborted(),
    );
  }
}

function ownSites(): string {
  const sites = biggestSites();
  return sites.length === 0 ? '' : `; of pid ${process.pid}: ${sites.join('; ')}`;
}

function patiently<R>(millis: number, ticket: number, last: boolean, call: () => R, spilling = false): R {
  native.setPatience(millis, ticket, last, spilling);
  try {
    return translated(call);
  } finally {
    native.setPatience(0, 0, false, false);
  }
}

/** A number that no other thread of the process uses. */
function nextTicket(): number {
  thread.tickets += 1;
  return threadId * 2 ** 32 + thread.tickets;
}
