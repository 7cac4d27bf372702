/** The addon. Everything else of the package speaks to it through this name. */
import { types } from 'node:util';
import { runInThisContext } from 'node:vm';
import type * as Native from '#native' with { 'resolution-mode': 'import' };
import { isInner } from './realm.cjs';

const addon = require('#native') as typeof Native;

/**
 * What a thread's memberships have in common however many copies of this package it loads: test runners make a new copy
 * for each file, while the addon, its mailbox and its handles are those of the thread.
 */
export interface Thread {
  /** Sessions are numbered: a handle of an earlier one must never be taken for one of the present. */
  session: number;
  /** The session that the mailbox is open for, by its worker's id. */
  workerId: string | undefined;
  /** This thread began the membership. */
  owns: boolean;
  /** A shutdown that is under way. */
  leaving: Promise<void> | undefined;
  /** The exit of the process ends the membership. */
  exits: boolean;
  /** News from the cluster, for the copy that entered last. */
  onEvents: (events: number[]) => void;
  /** The mailbox's callback: of the outer realm, since the copy that opened it may go before it. */
  readonly deliver: (events: number[]) => void;
  /** Called when tasks arrived; only workers have one. */
  onTask: (() => void) | undefined;
  /** Called when a run of this worker was aborted. */
  onAbort: (() => void) | undefined;
  /** Called when failures went unread, and with `true` when no more can be read. */
  onUnread: ((all: boolean) => void) | undefined;
  /** Places in line for room in the store that the thread has asked for. */
  tickets: number;
  /** How many copies of this package the thread has loaded. */
  copies: number;
  /** What to call when a wait is over, by the wait's number. */
  readonly waits: Map<number, () => void>;
  /** The event loop is kept alive. */
  holding: boolean;
  /** References to objects in the store, by handle; `null` for the first wrapper of one. */
  readonly tracked: Map<number, Share | null>;
}

/** A further wrapper's part in a handle, and whether it was given up. */
export interface Share {
  handle: number;
  dropped: boolean;
}

const THREAD = Symbol.for('heliostat.thread');

function findThread(): Thread {
  // The addon's exports are one object for all copies in a thread.
  const shared = addon as unknown as { [THREAD]?: Thread };
  if (shared[THREAD] === undefined) {
    const thread: Thread = {
      onTask: undefined,
      onAbort: undefined,
      onUnread: undefined,
      tickets: 0,
      copies: 0,
      session: 0,
      workerId: undefined,
      owns: false,
      leaving: undefined,
      exits: false,
      onEvents: () => {},
      deliver: () => {},
      waits: new Map(),
      holding: false,
      tracked: new Map(),
    };
    Object.assign(thread, { deliver: runInThisContext('(thread) => (events) => thread.onEvents(events)')(thread) });
    Object.defineProperty(shared, THREAD, { value: thread });
  }
  const found = shared[THREAD] as Thread;
  found.copies += 1;
  return found;
}

/** See {@link Thread}. */
export const thread: Thread = findThread();

/** What the addon makes, as this realm's: lists, buffers, and the plain objects that hold them. */
function adopted(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return Array.from(value, adopted);
  if (types.isArrayBuffer(value)) {
    // Its memory stays where it is: only what JavaScript calls it changes.
    return value instanceof ArrayBuffer ? value : Object.setPrototypeOf(value, ArrayBuffer.prototype);
  }
  if (types.isPromise(value)) return Promise.resolve(value);
  if (types.isUint8Array(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  if (types.isUint32Array(value)) return new Uint32Array(value.buffer, value.byteOffset, value.length);
  const own: Record<string, unknown> = {};
  for (const key of Object.keys(value)) own[key] = adopted((value as Record<string, unknown>)[key]);
  return own;
}

function adoptedError(error: unknown): unknown {
  if (!types.isNativeError(error) || error instanceof Error) return error;
  const { code, name, message, stack } = error as NodeJS.ErrnoException;
  const type = name === 'TypeError' ? TypeError : name === 'RangeError' ? RangeError : Error;
  const own = Object.assign(new type(message), code === undefined ? {} : { code });
  Object.defineProperty(own, 'stack', { value: stack, writable: true, configurable: true });
  return own;
}

function inThisRealm(raw: typeof Native): typeof Native {
  const own: Record<string, unknown> = {};
  for (const name of Object.keys(raw)) {
    const value: unknown = (raw as unknown as Record<string, unknown>)[name];
    own[name] =
      typeof value !== 'function'
        ? value
        : (...parameters: unknown[]) => {
            try {
              return adopted(Reflect.apply(value as CallableFunction, raw, parameters));
            } catch (error) {
              throw adoptedError(error);
            }
          };
  }
  return own as unknown as typeof Native;
}

export const native: typeof Native = isInner ? inThisRealm(addon) : addon;

/** Ends the membership when the process exits; a function of the outer realm, which outlives a test's. */
export const atExit: () => void = runInThisContext(
  '(thread, exitNode) => () => { if (thread.workerId !== undefined) thread.onUnread?.(true); exitNode(); }',
)(thread, addon.exitNode);
