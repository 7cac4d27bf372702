/** This thread's part in the process's membership: joining, waiting, leaving. */

import { tmpdir } from 'node:os';
import { join as joinPath } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { isMainThread } from 'node:worker_threads';
import * as check from './check.cjs';
import { AlreadyInitializedError, NotInitializedError, notYet } from './errors.cjs';
import { hasImmutableBuffers, IMMUTABLE_FLAG, shareTransfer } from './immutable.cjs';
import { atExit, native, thread } from './native.cjs';
import { endSession, setEnded } from './object-ref.cjs';
import { outer } from './realm.cjs';
import { setPutTimeout } from './room.cjs';
import { checkRuntimeEnv, inheritEnv, settled, withoutValues } from './runtime-env.cjs';
import { biggestSites } from './sites.cjs';
import { checkSpilling, spillSettings } from './spilling.cjs';
import * as system from './system.cjs';
import { letGarbageGo, setCapacity, setInlineLimit, translated } from './transfer.cjs';
import type { Context, InitOptions } from './types.cjs';

/**
 * A worker runs one task at a time and there are as many as CPUs: helper threads of one's garbage collector would take
 * another's core, and what a task drops is best dropped young. See docs/design/dependencies.md for the figures.
 */
const WORKER_FLAGS = ['--max-semi-space-size=64', '--single-threaded-gc'];

/** Smallest store that init() accepts, in bytes. */
const MIN_STORE = 1 << 20;
const DEFAULT_INLINE_LIMIT = 100 * 1024;
const DEFAULT_PUT_TIMEOUT = 30_000;

/** The membership of this process as this thread knows it. */
interface Membership {
  context: Context;
  workerId: string;
  options: InitOptions;
  /** The number of its session: another copy of this package may have ended it. */
  session: number;
}

let membership: Membership | undefined;

const { waits } = thread;

/** The membership, unless its session has ended. */
function living(): Membership | undefined {
  return membership?.session === thread.session ? membership : undefined;
}

setEnded(
  () =>
    new NotInitializedError('this reference belongs to a session that has ended', {
      hint: 'references end with shutdown(): put the value again, or get it before',
    }),
);

function onEvents(events: number[]): void {
  for (const event of events) {
    if (event >= 0) {
      const settle = waits.get(event);
      waits.delete(event);
      settle?.();
    } else if (event === TASK) thread.onTask?.();
    else if (event === COLLECT) letGarbageGo();
    else if (event <= SITES) native.tellSites(SITES - event, biggestSites());
    else if (event === ABORT) thread.onAbort?.();
    else if (event === UNREAD) thread.onUnread?.(false);
    else if (event === NODE_GONE) onNodeGone();
  }
  holdLoop();
}

/** The node died, or another thread ended the session: then this thread's part of it ends as well. */
function onNodeGone(): void {
  if (native.currentSession()?.workerId === thread.workerId) {
    for (const settle of waits.values()) settle();
    waits.clear();
    return;
  }
  membership = undefined;
  endSession();
  thread.workerId = undefined;
  native.closePort();
  abandonWaits();
}

const TASK = -1;
const NODE_GONE = -3;
const COLLECT = -2;
const ABORT = -4;
const SITES = -1000;
const UNREAD = -5;

/** Keeps the process alive while something is waited for; a worker always waits for tasks. */
function holdLoop(): void {
  const hold = waits.size > 0 || thread.onTask !== undefined;
  if (hold !== thread.holding) {
    thread.holding = hold;
    native.holdLoop(hold);
  }
}

/** Calls back when a wait is over. */
export function whenOver(wait: number, settle: () => void): void {
  waits.set(wait, settle);
  holdLoop();
}

/** Gives a wait up. */
export function endWait(wait: number): void {
  // The wait of a session that has ended, ended with it.
  if (!waits.delete(wait) && living() === undefined) return;
  native.endWait(wait);
  holdLoop();
}

/** Sets who runs tasks in this process. */
export function setTaskHandler(handler: () => void): void {
  thread.onTask = handler;
  holdLoop();
}

/** Sets who tells running code that it was aborted. */
export function setAbortHandler(handler: () => void): void {
  thread.onAbort = handler;
}

/** Sets who reports failures that nobody read. */
export function setUnreadHandler(handler: (all: boolean) => void): void {
  thread.onUnread = handler;
}

const KNOWN: Record<keyof InitOptions, (value: unknown) => void> = {
  address: (value) => check.string(value, 'address'),
  token: (value) => check.string(value, 'token'),
  numCpus: (value) => check.number(value, 'numCpus', { min: 0, finite: true }),
  numGpus: (value) => check.number(value, 'numGpus', { min: 0, finite: true }),
  resources: (value) => check.amounts(value, 'resources'),
  labels: (value) => {
    check.options(value, 'labels');
    for (const [name, label] of Object.entries(value ?? {})) check.string(label ?? null, `labels.${name}`);
  },
  objectStoreMemory: (value) => check.number(value, 'objectStoreMemory', { min: MIN_STORE, finite: true }),
  inlineLimit: (value) => check.number(value, 'inlineLimit', { min: 0, max: 16 << 20, integer: true }),
  objectSpilling: (value) => {
    if (value !== false) checkSpilling(value);
  },
  putTimeoutMs: (value) => check.timeout(value, 'putTimeoutMs'),
  namespace: (value) => check.string(value, 'namespace'),
  logToDriver: (value) => check.boolean(value, 'logToDriver'),
  dashboard: (value) => {
    if (typeof value !== 'boolean') check.options(value, 'dashboard');
  },
  runtimeEnv: (value) => checkRuntimeEnv(value),
  tempDir: (value) => check.string(value, 'tempDir'),
  ignoreReinit: (value) => check.boolean(value, 'ignoreReinit'),
};

function checkOptions(options: InitOptions): InitOptions {
  check.options(options, "init()'s options");
  const given: InitOptions = {};
  for (const [name, value] of Object.entries(options)) {
    const known = KNOWN[name as keyof InitOptions];
    if (known === undefined)
      throw new TypeError(`init() has no option ${name}; it has ${Object.keys(KNOWN).join(', ')}`);
    known(value);
    if (value !== undefined) (given as Record<string, unknown>)[name] = value;
  }
  for (const name of ['CPU', 'GPU', 'memory']) {
    if (given.resources !== undefined && name in given.resources) {
      throw new TypeError(`resources.${name}: use numCpus, numGpus or the task's memory option for built-in resources`);
    }
  }
  if (given.runtimeEnv !== undefined) given.runtimeEnv = settled(given.runtimeEnv);
  if (given.dashboard) throw notYet('init({ dashboard })');
  return given;
}

/** Starts or joins, once; later calls get the running membership. */
export function start(options: InitOptions = {}): Context {
  const given = checkOptions(options);
  const known = living();
  if (known !== undefined) return rejoin(known, given);
  if (thread.leaving !== undefined)
    throw new NotInitializedError('shutdown() is still under way: await it, or init(), before other calls');
  endAtExit();
  for (;;) {
    // Threads of a process share its membership, and so do copies of this package in one thread.
    const shared = native.currentSession();
    const raw = shared ?? translated(() => begin(given));
    try {
      return enter(raw, given, shared === null);
    } catch (error) {
      // The last other thread has left meanwhile, and ended what it had begun: this one begins anew.
      if ((error as { code?: string }).code !== 'NOT_INITIALIZED') throw error;
    }
  }
}

function begin(options: InitOptions): ReturnType<typeof native.startNode> {
  const address = options.address ?? process.env['HELIOSTAT_ADDRESS'];
  return address === undefined ? startEmbedded(options) : joinAddress(address);
}

/** Like {@link start}, after a shutdown that is under way. */
export async function startAfterLeaving(options: InitOptions = {}): Promise<Context> {
  checkOptions(options);
  await thread.leaving;
  return start(options);
}

/** Whether a shutdown is under way. */
export function isLeaving(): boolean {
  return thread.leaving !== undefined;
}

/** Takes the process's membership up in this thread. */
function enter(raw: ReturnType<typeof native.startNode>, options: InitOptions, owns: boolean): Context {
  // News go to the copy that came last; what waits in another one settles from here as well.
  thread.onEvents = onEvents;
  if (thread.workerId !== raw.workerId) {
    // What settles now belongs to the session before.
    thread.session += 1;
    abandonWaits();
    native.openPort(thread.deliver);
    thread.workerId = raw.workerId;
    thread.owns = owns;
  }
  setCapacity(raw.capacity);
  setInlineLimit(raw.inlineLimit);
  setPutTimeout(raw.putTimeout);
  shareTransfer();
  const context: Context = {
    address: raw.address,
    dashboardUrl: null,
    nodeId: raw.nodeId,
    jobId: raw.jobId,
    namespace: options.namespace ?? 'default',
    [Symbol.asyncDispose]: () => leave(),
  };
  membership = { context, workerId: raw.workerId, options, session: thread.session };
  if (owns && options.namespace !== undefined) native.setNamespace(options.namespace);
  if (owns && options.runtimeEnv !== undefined) inheritEnv(options.runtimeEnv);
  return context;
}

/** Ends the membership when the process exits; that of a thread that is terminated ends in native code. */
function endAtExit(): void {
  if (thread.exits || !isMainThread) return;
  thread.exits = true;
  // The process itself: test runners put a copy in its place, which emits nothing.
  outer.process.on('exit', atExit);
}

function rejoin(current: Membership, given: InitOptions): Context {
  const { ignoreReinit, ...rest } = given;
  if (ignoreReinit === true) return current.context;
  for (const name of new Set([...Object.keys(rest), ...Object.keys(current.options)]) as Set<keyof InitOptions>) {
    if (name === 'ignoreReinit') continue;
    if (!isDeepStrictEqual(rest[name], current.options[name])) {
      throw new AlreadyInitializedError(
        `heliostat is already initialized with ${name} ${shown(current.options, name)}, init() asks for ${shown(rest, name)}`,
        { hint: 'await shutdown() first, or pass ignoreReinit: true to use the running session' },
      );
    }
  }
  return current.context;
}

function shown(options: InitOptions, name: keyof InitOptions): string {
  const value = name === 'runtimeEnv' ? withoutValues(options.runtimeEnv) : options[name];
  return JSON.stringify(value) ?? 'unset';
}

function startEmbedded(options: InitOptions): ReturnType<typeof native.startNode> {
  const resources: Record<string, number> = { ...options.resources, CPU: options.numCpus ?? system.cpus() };
  if (options.numGpus !== undefined) resources['GPU'] = options.numGpus;
  const memory = system.memory();
  resources['memory'] = Math.floor(memory * 0.7);
  return native.startNode({
    tempDir: options.tempDir ?? tmpdir(),
    resources,
    labels: options.labels ?? {},
    objectStoreMemory: options.objectStoreMemory ?? Math.floor(memory * 0.3),
    inlineLimit: options.inlineLimit ?? DEFAULT_INLINE_LIMIT,
    program: process.execPath,
    args: [...WORKER_FLAGS, ...(hasImmutableBuffers ? [IMMUTABLE_FLAG] : [])],
    entry: [joinPath(__dirname, 'worker', 'main.cjs')],
    awaitsEnv: options.runtimeEnv !== undefined,
    env: {},
    ...(options.objectSpilling === false ? {} : { spilling: spillSettings(options.objectSpilling ?? {}) }),
    putTimeout: options.putTimeoutMs ?? DEFAULT_PUT_TIMEOUT,
    logToDriver: options.logToDriver ?? true,
  });
}

function joinAddress(address: string): ReturnType<typeof native.joinNode> {
  if (!address.startsWith('unix:')) throw notYet(`init({ address: ${JSON.stringify(address)} })`);
  return native.joinNode(address.slice('unix:'.length));
}

/** Joins as the worker that the daemon started this process to be. */
export function startWorker(socket: string, token: string): Context {
  return enter(
    translated(() => native.joinNode(socket, token)),
    {},
    false,
  );
}

/** The membership; starts one with the defaults when there is none. */
export function current(): Membership {
  if (living() === undefined) {
    if (thread.leaving !== undefined)
      throw new NotInitializedError('heliostat is shutting down', {
        hint: 'call init() after shutdown() has finished',
      });
    start();
  }
  return membership as Membership;
}

/** Whether there is a membership. */
export function isInitialized(): boolean {
  return living() !== undefined;
}

/** Gives up what waits: its callers see that the session has ended. */
function abandonWaits(): void {
  const abandoned = [...waits.values()];
  waits.clear();
  thread.holding = false;
  for (const settle of abandoned) settle();
}

/** Leaves: what waits fails, workers end, nothing is left behind. */
export function leave(): Promise<void> {
  if (living() === undefined) return Promise.resolve(thread.leaving);
  // A worker's task goes on in its cluster: only its program's own references could end here, and they end with it.
  if (thread.onTask !== undefined) return Promise.resolve();
  if (thread.owns) thread.onUnread?.(true);
  membership = undefined;
  endSession();
  thread.workerId = undefined;
  const others = native.closePort();
  abandonWaits();
  // A thread takes nothing from those that go on; the program's own end is everybody's.
  const forced = thread.owns && isMainThread;
  if (others > 0 && !forced) return Promise.resolve();
  thread.leaving = native.leaveNode(forced).finally(() => {
    thread.leaving = undefined;
  });
  return thread.leaving;
}
