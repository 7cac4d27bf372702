/** This thread's part in the process's membership: joining, waiting, leaving. */

import { tmpdir } from 'node:os';
import { join as joinPath } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import * as check from './check.cjs';
import { AlreadyInitializedError, NotInitializedError, notYet } from './errors.cjs';
import { hasImmutableBuffers, IMMUTABLE_FLAG, shareTransfer } from './immutable.cjs';
import { native } from './native.cjs';
import { endSession, session, setEnded } from './object-ref.cjs';
import { setPutTimeout } from './room.cjs';
import { checkSpilling, spillSettings } from './spilling.cjs';
import * as system from './system.cjs';
import { letGarbageGo, setCapacity, translated } from './transfer.cjs';
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
  /** This thread began it, and ends it for the process. */
  owns: boolean;
}

let membership: Membership | undefined;
let leaving: Promise<void> | undefined;
/** The exit of the process ends the membership. */
let exits = false;

/** Promises of waits, by the wait's number. */
const waits = new Map<number, () => void>();
/** Called when tasks arrived; only workers have one. */
let onTask: (() => void) | undefined;
/** Called when a write into the store was seen. */
let onWrite: (() => void) | undefined;

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
    } else if (event === TASK) onTask?.();
    else if (event === WRITTEN) onWrite?.();
    else if (event === COLLECT) letGarbageGo();
    else if (event === NODE_GONE) {
      for (const settle of waits.values()) settle();
      waits.clear();
    }
  }
  holdLoop();
}

const TASK = -1;
const WRITTEN = -2;
const NODE_GONE = -3;
const COLLECT = -4;

let holding = false;

/** Keeps the process alive while something is waited for; a worker always waits for tasks. */
function holdLoop(): void {
  const hold = waits.size > 0 || onTask !== undefined;
  if (hold !== holding) {
    holding = hold;
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
  if (!waits.delete(wait) && membership === undefined) return;
  native.endWait(wait);
  holdLoop();
}

/** Sets who runs tasks in this process. */
export function setTaskHandler(handler: () => void): void {
  onTask = handler;
  holdLoop();
}

/** Sets who is told of writes into the store. */
export function setWriteHandler(handler: () => void): void {
  onWrite = handler;
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
  runtimeEnv: (value) => check.options(value, 'runtimeEnv'),
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
  if (given.runtimeEnv !== undefined) throw notYet('init({ runtimeEnv })');
  if (given.dashboard) throw notYet('init({ dashboard })');
  return given;
}

/** Starts or joins, once; later calls get the running membership. */
export function start(options: InitOptions = {}): Context {
  const given = checkOptions(options);
  if (membership !== undefined) return rejoin(membership, given);
  if (leaving !== undefined)
    throw new NotInitializedError('shutdown() is still under way: await it, or init(), before other calls');
  // Threads of a process share its membership.
  const shared = native.currentSession();
  if (shared !== null) return enter(shared, given, false);
  const address = given.address ?? process.env['HELIOSTAT_ADDRESS'];
  const raw = translated(() => (address === undefined ? startEmbedded(given) : joinAddress(address)));
  return enter(raw, given, true);
}

/** Like {@link start}, after a shutdown that is under way. */
export async function startAfterLeaving(options: InitOptions = {}): Promise<Context> {
  checkOptions(options);
  await leaving;
  return start(options);
}

/** Whether a shutdown is under way. */
export function isLeaving(): boolean {
  return leaving !== undefined;
}

/** Takes the process's membership up in this thread. */
function enter(raw: ReturnType<typeof native.startNode>, options: InitOptions, owns: boolean): Context {
  session.current += 1;
  native.openPort(onEvents);
  setCapacity(raw.capacity);
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
  membership = { context, workerId: raw.workerId, options, owns };
  if (owns && !exits) {
    exits = true;
    process.on('exit', () => native.exitNode());
  }
  return context;
}

function rejoin(current: Membership, given: InitOptions): Context {
  const { ignoreReinit, ...rest } = given;
  if (ignoreReinit === true) return current.context;
  for (const name of new Set([...Object.keys(rest), ...Object.keys(current.options)]) as Set<keyof InitOptions>) {
    if (name === 'ignoreReinit') continue;
    if (!isDeepStrictEqual(rest[name], current.options[name])) {
      throw new AlreadyInitializedError(
        `heliostat is already initialized with ${name} ${JSON.stringify(current.options[name]) ?? 'unset'}, init() asks for ${JSON.stringify(rest[name]) ?? 'unset'}`,
        { hint: 'await shutdown() first, or pass ignoreReinit: true to use the running session' },
      );
    }
  }
  return current.context;
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
    args: [
      ...WORKER_FLAGS,
      ...(hasImmutableBuffers ? [IMMUTABLE_FLAG] : []),
      joinPath(__dirname, 'worker', 'main.cjs'),
    ],
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
  if (membership === undefined) {
    if (leaving !== undefined)
      throw new NotInitializedError('heliostat is shutting down', {
        hint: 'call init() after shutdown() has finished',
      });
    start();
  }
  return membership as Membership;
}

/** Whether there is a membership. */
export function isInitialized(): boolean {
  return membership !== undefined;
}

/** Leaves: what waits fails, workers end, nothing is left behind. */
export function leave(): Promise<void> {
  if (membership === undefined) return leaving ?? Promise.resolve();
  // A worker's task goes on in its cluster: only its program's own references could end here, and they end with it.
  if (onTask !== undefined) return Promise.resolve();
  const { owns } = membership;
  membership = undefined;
  endSession();
  native.closePort();
  const abandoned = [...waits.values()];
  waits.clear();
  holding = false;
  for (const settle of abandoned) settle();
  if (!owns) return Promise.resolve();
  leaving = native.leaveNode().finally(() => {
    leaving = undefined;
  });
  return leaving;
}
