/** Storing and reading objects. */

import type { Handles, RawFailure, RawValue } from '#native' with { 'resolution-mode': 'import' };
import * as check from './check.cjs';
import { clearTimeout, setTimeout } from './clock.cjs';
import { taskSignal, tellAborted } from './context.cjs';
import { allocateDraft, setStore } from './draft.cjs';
import {
  GetTimeoutError,
  NotInitializedError,
  notYet,
  ObjectStoreFullError,
  SerializationError,
  TaskCancelledError,
} from './errors.cjs';
import { errorOf, errorOfSync } from './failures.cjs';
import { native } from './native.cjs';
import { adoptRef, type CallSite, handleOf, makeRef, ObjectRef, setGetter, siteOf, trackRef } from './object-ref.cjs';
import { extentOf } from './range.cjs';
import { withRoom, withRoomSoon } from './room.cjs';
import { current, endWait, whenOver } from './runtime.cjs';
import { putSite } from './sites.cjs';
import {
  fromRaw,
  fromRawSync,
  letGarbageGo,
  NOT_SMALL,
  noteGiven,
  putValue,
  readSmall,
  translated,
  withEncoded,
} from './transfer.cjs';
import type { Draft, GetOptions, PutOptions, Sealed, TypedArray, ValueOf, Values, WaitOptions } from './types.cjs';
import { bytesOf, rangeOf } from './values/slots.cjs';
import { noteCopies, takeViolation, views } from './writes.cjs';

/**
 * Serialises and stores `value`; the reference is usable immediately.
 *
 * Up to the inline limit the bytes stay in this process, above it they go to the node's store, once.
 *
 * With a `name` the object belongs to the cluster: it outlives this process, and {@link getNamed} finds it. Such a put waits
 * for the daemon, 5 seconds at most, then throws TransportError; a taken name throws NameTakenError. The name goes after
 * `ttlMs` milliseconds, or when the object is freed; the object goes with its last reference after that.
 *
 * @example
 * put(model, { name: 'model', ttlMs: 3_600_000 });
 * const model = await get(await getNamed<Model>('model')); // here, in a task, or in another driver of this cluster
 */
export function put<T>(value: T, options?: PutOptions): ObjectRef<Sealed<T>> {
  checkPut(value, options, 'put()');
  return refOf(
    withRoom(() => store(value, options)),
    put,
  );
}

function store(value: unknown, options: PutOptions | undefined): number {
  if (options?.name === undefined) return putValue(value);
  const { name, ttlMs = Number.POSITIVE_INFINITY } = options;
  const ttl = ttlMs > Number.MAX_SAFE_INTEGER ? -1 : Math.ceil(ttlMs);
  return withEncoded(value, (...parts) => native.putNamed(name, ttl, ...parts));
}

/** A reference of a value that was stored; of one in the store the place of the call is kept. */
function refOf<T>(handle: number, from: CallableFunction | CallSite): ObjectRef<T> {
  if (native.refState(handle) !== IN_STORE) return makeRef(handle) as ObjectRef<T>;
  const ref = makeRef(handle, typeof from === 'function' ? putSite(from) : from);
  trackRef(ref);
  return ref as ObjectRef<T>;
}

function checkPut(value: unknown, options: PutOptions | undefined, by: string): void {
  checkPutOptions(options, by);
  if (value instanceof ObjectRef) {
    throw new TypeError(
      'put() takes a value, not an ObjectRef: the object is stored already; put it inside an array to store the reference itself',
    );
  }
  if (check.isThenable(value)) {
    throw new SerializationError('cannot send $: it has a method `then`, so that a get would take it for a promise', {
      hint: 'await it first, or put it inside an array',
    });
  }
  current();
}

/**
 * Like {@link put}, but waits for room in a full store without blocking the event loop, for `timeoutMs` (default:
 * `putTimeoutMs` of init). The value is read when there is room: leave it as it is until then.
 */
export async function putAsync<T>(
  value: T,
  options?: PutOptions & { timeoutMs?: number; signal?: AbortSignal },
): Promise<ObjectRef<Sealed<T>>> {
  checkPutOptions(options, 'putAsync()');
  check.timeout(options?.timeoutMs);
  check.signal(options?.signal);
  options?.signal?.throwIfAborted();
  const { timeoutMs, signal, ...rest } = options ?? {};
  checkPut(value, rest, 'putAsync()');
  // What called is not on the stack any more afterwards.
  const site = putSite(putAsync);
  return refOf(await withRoomSoon(() => store(value, rest), timeoutMs, signal), site);
}

function checkPutOptions(options: PutOptions | undefined, by: string): void {
  check.options(options, `${by}'s options`);
  checkName(options?.name);
  check.timeout(options?.ttlMs, 'ttlMs');
  if (options?.ttlMs !== undefined && options.name === undefined)
    throw new TypeError(`${by}: ttlMs is the time of a name; give the object a name, or leave ttlMs out`);
}

function checkName(name: unknown): void {
  check.string(name, 'name');
  if (name === '') throw new RangeError('name must not be empty');
}

/** Where a value is: see `refState` of the addon. */
const IN_STORE = 1;
/** How a blocking wait ended: see `block` of the addon. */
const LATE = 1;
const ABORTED = 2;

function refsOf(refs: unknown, name: string): ObjectRef[] {
  if (!Array.isArray(refs))
    throw new TypeError(`${name} takes an ObjectRef or an array of them, got ${check.describe(refs)}`);
  for (let index = 0; index < refs.length; index++) {
    if (!(refs[index] instanceof ObjectRef))
      throw new TypeError(`${name} takes ObjectRefs, but [${index}] is ${check.describe(refs[index])}`);
  }
  return refs as ObjectRef[];
}

/**
 * The value of a reference, or the values of several in their order. Rejects as soon as one failed, with the failure
 * of the lowest index among those that failed. Without `timeoutMs` it waits as long as it takes.
 */
export function get<R extends ObjectRef<any>>(ref: R, options?: GetOptions): Promise<ValueOf<R>>;
export function get<const R extends readonly ObjectRef<any>[]>(refs: R, options?: GetOptions): Promise<Values<R>>;
export function get(target: ObjectRef | readonly ObjectRef[], options?: GetOptions): Promise<unknown> {
  const single = target instanceof ObjectRef;
  if (single && options === undefined) {
    current();
    return getOne(target);
  }
  const refs = single ? [target] : refsOf(target, 'get()');
  check.options(options, "get()'s options");
  check.timeout(options?.timeoutMs);
  check.signal(options?.signal);
  if (options?.signal?.aborted) return Promise.reject(options.signal.reason);
  current();
  const done = read(refs, refs.map(handleOf), options);
  return single ? done.then((list) => list[0]) : done;
}

/** The commonest get, with as little around it as there can be. */
function getOne(ref: ObjectRef): Promise<unknown> {
  const handle = handleOf(ref);
  let wait: number;
  try {
    const value = translated(() => readSmall(handle));
    if (value !== NOT_SMALL) return Promise.resolve(value);
    if (taskSignal() !== undefined) return read([ref], [handle], undefined).then((list) => list[0]);
    wait = translated(() => native.wait([handle], 1, true));
  } catch (error) {
    return Promise.reject(error);
  }
  if (wait < 0) return fromFirst(ref, handle);
  return new Promise((resolve, reject) => {
    whenOver(wait, () => {
      try {
        const now = translated(() => readSmall(handle));
        resolve(now === NOT_SMALL ? fromFirst(ref, handle) : now);
      } catch (error) {
        reject(error);
      } finally {
        endWait(wait);
      }
    });
  });
}

async function fromFirst(ref: ObjectRef, handle: number): Promise<unknown> {
  const [value] = await takeEach([ref], [handle], undefined);
  return value;
}

function read(refs: readonly ObjectRef[], handles: number[], options: GetOptions | undefined): Promise<unknown[]> {
  let wait: number;
  try {
    wait = translated(() => native.wait(handles, handles.length, true));
    // What is there is read in this turn: its handles may be gone in the next.
    if (wait < 0) return takeAll(refs, handles, options);
  } catch (error) {
    return Promise.reject(error);
  }
  return waitFor(wait, refs, options)
    .then(() => takeAll(refs, handles, options))
    .finally(() => endWait(wait));
}

/** Reads all values in this turn, small ones at once. */
function takeAll(refs: readonly ObjectRef[], handles: number[], options: GetOptions | undefined): Promise<unknown[]> {
  const values: unknown[] = new Array(handles.length);
  for (let index = 0; index < handles.length; index++) {
    const value = readSmall(handles[index] as number);
    // Something else, or a failure, which counts before all values.
    if (value === NOT_SMALL) return takeEach(refs, handles, options);
    values[index] = value;
  }
  return Promise.resolve(values);
}

async function takeEach(
  refs: readonly ObjectRef[],
  handles: number[],
  options: GetOptions | undefined,
): Promise<unknown[]> {
  const taken = takeHere(refs, handles) ?? (await takeBack(refs, handles, options));
  return Promise.all(taken.map(fromTaken));
}

/** Reads all values, unless one of them is spilled. */
function takeHere(refs: readonly ObjectRef[], handles: number[]): Taken[] | undefined {
  try {
    return take(refs, handles, false);
  } catch (error) {
    if ((error as { code?: unknown }).code === 'SPILLED') return undefined;
    throw error;
  }
}

/** Reads all values; where there is no room to bring one back, this thread's garbage goes first. */
function takeNow(refs: readonly ObjectRef[], handles: number[]): Taken[] {
  try {
    return take(refs, handles, true);
  } catch (error) {
    if (!(error instanceof ObjectStoreFullError)) throw error;
  }
  letGarbageGo();
  return take(refs, handles, true);
}

/** Has what is spilled brought back, and reads all values. */
async function takeBack(
  refs: readonly ObjectRef[],
  handles: number[],
  options: GetOptions | undefined,
): Promise<Taken[]> {
  const restore = translated(() => native.restore(handles));
  try {
    if (restore >= 0) await waitFor(restore, refs, options);
    // What could not be brought back says so now.
    return takeNow(refs, handles);
  } finally {
    if (restore >= 0) endWait(restore);
  }
}

setGetter((ref, options) => get(ref, options));

interface Taken {
  value: RawValue | RawFailure;
  ref: ObjectRef;
}

/** Reads all values, or the one failure that counts. */
function take(refs: readonly ObjectRef[], handles: number[], mayWait: boolean): Taken[] {
  const failed = translated(() => handles.findIndex((handle) => native.refState(handle) === FAILED));
  const wanted = failed >= 0 ? [failed] : handles.map((_, index) => index);
  // One failure is thrown; the program learned of the others by it.
  if (failed >= 0) native.observe(handles);
  return wanted.map((index) => {
    const ref = refs[index] as ObjectRef;
    takeViolation(ref);
    const value = translated(() => native.read(handles[index] as number, mayWait));
    if (value === undefined) throw new NotInitializedError('shutdown() was called while this get was under way');
    if (!isFailure(value) && value.buffers.length > 0) {
      views.given = true;
      noteCopies();
      trackRef(ref);
      noteGiven(value.buffers);
    }
    return { value, ref };
  });
}

const FAILED = 2;

function isFailure(value: RawValue | RawFailure): value is RawFailure {
  return 'code' in value;
}

async function fromTaken({ value, ref }: Taken): Promise<unknown> {
  if (isFailure(value)) throw await errorOf(value, siteOf(ref));
  return (await fromRaw(value)).value;
}

/** Waits in the background; rejects on abort, and when the time is over with what `late` makes, if it makes an error. */
function waitFor(
  wait: number,
  refs: readonly ObjectRef[],
  options: GetOptions | WaitOptions | undefined,
  late: (refs: readonly ObjectRef[], timeoutMs: number) => Error | undefined = timedOut,
): Promise<void> {
  const { timeoutMs, signal } = options ?? {};
  // A task that is cancelled waits no longer; what its code does about that may wait again.
  const task = taskSignal();
  const signals = [signal, task?.aborted ? undefined : task].filter((each) => each !== undefined);
  return new Promise<void>((resolve, reject) => {
    let timer: NodeJS.Timeout | undefined;
    const clear = () => {
      clearTimeout(timer);
      for (const each of signals) each.removeEventListener('abort', onAbort);
    };
    const onAbort = () => {
      clear();
      reject(signals.find((each) => each.aborted)?.reason);
    };
    if (signal?.aborted) return onAbort();
    for (const each of signals) each.addEventListener('abort', onAbort);
    whenOver(wait, () => {
      clear();
      resolve();
    });
    // Beyond a timer's range nobody waits to see the end of it.
    if (timeoutMs !== undefined && timeoutMs <= MAX_TIMER) {
      timer = setTimeout(() => {
        clear();
        const error = late(refs, timeoutMs);
        if (error === undefined) resolve();
        else reject(error);
      }, timeoutMs);
    }
  });
}

const MAX_TIMER = 2 ** 31 - 1;

function timedOut(refs: readonly ObjectRef[], timeoutMs: number): GetTimeoutError {
  const missing = refs.filter((ref) => !isReady(ref));
  const named = missing.slice(0, 3).map(String).join(', ') + (missing.length > 3 ? ', …' : '');
  return new GetTimeoutError(
    `get timed out after ${timeoutMs} ms: ${missing.length} of ${refs.length} objects not ready: ${named}`,
    {
      hint: 'wait longer, or use wait() to take what is ready',
    },
  );
}

function isReady(ref: ObjectRef): boolean {
  try {
    return native.refState(handleOf(ref)) >= 0;
  } catch {
    return false; // disposed while it was waited for
  }
}

/** The blocking form of {@link get}, for scripts and for task bodies: the whole process waits. */
export function getSync<R extends ObjectRef<any>>(ref: R, options?: { timeoutMs?: number }): ValueOf<R>;
export function getSync<const R extends readonly ObjectRef<any>[]>(
  refs: R,
  options?: { timeoutMs?: number },
): Values<R>;
export function getSync(target: ObjectRef | readonly ObjectRef[], options?: { timeoutMs?: number }): unknown {
  const single = target instanceof ObjectRef;
  const refs = single ? [target] : refsOf(target, 'getSync()');
  check.options(options, "getSync()'s options");
  check.timeout(options?.timeoutMs);
  current();
  const handles = refs.map(handleOf);
  if (single) {
    const value = readSmall(handles[0] as number);
    if (value !== NOT_SMALL) return value;
  }
  const limit = options?.timeoutMs;
  const ended = translated(() =>
    native.block(handles, limit === undefined || limit === Number.POSITIVE_INFINITY ? -1 : limit),
  );
  if (ended === LATE) throw timedOut(refs, limit ?? 0);
  if (ended === ABORTED) {
    tellAborted();
    throw taskSignal()?.reason ?? new TaskCancelledError('the task was cancelled while it waited');
  }
  const values = takeNow(refs, handles).map(({ value, ref }) => {
    if (isFailure(value)) throw errorOfSync(value, siteOf(ref));
    return fromRawSync(value);
  });
  return single ? values[0] : values;
}

/**
 * Waits until `numReturns` (default 1) of the references have a value or failed, or the time is over. Both lists keep
 * the order of `refs`; `ready` has at most `numReturns`.
 */
export async function wait<T>(
  refs: readonly ObjectRef<T>[],
  options?: WaitOptions,
): Promise<{ ready: ObjectRef<T>[]; pending: ObjectRef<T>[] }> {
  const list = refsOf(refs, 'wait()') as ObjectRef<T>[];
  check.options(options, "wait()'s options");
  check.timeout(options?.timeoutMs);
  check.signal(options?.signal);
  check.boolean(options?.fetchLocal, 'fetchLocal');
  if (list.length === 0) return { ready: [], pending: [] };
  const numReturns = options?.numReturns ?? 1;
  check.number(numReturns, 'numReturns', { min: 1, max: list.length, integer: true });
  options?.signal?.throwIfAborted();
  current();
  const handles = handlesOf(list);
  // One object has one handle in a process.
  const found = translated(() => native.waitSome(handles, numReturns));
  if (found === null) throw new TypeError('wait() takes each reference once, but one is in the list twice');
  return split(list, typeof found === 'number' ? await placesAfter(found, list, handles, numReturns, options) : found);
}

function handlesOf(refs: readonly ObjectRef[]): Uint32Array {
  const handles = new Uint32Array(refs.length);
  for (let index = 0; index < refs.length; index++) handles[index] = handleOf(refs[index] as ObjectRef);
  return handles;
}

async function placesAfter(
  id: number,
  list: readonly ObjectRef[],
  handles: Uint32Array,
  numReturns: number,
  options: WaitOptions | undefined,
): Promise<Handles> {
  try {
    await waitFor(id, list, options, () => undefined);
    // The wait holds the handles, disposed meanwhile or not.
    return translated(() => native.readyPlaces(handles, numReturns));
  } finally {
    endWait(id);
  }
}

/** Those at these places, and the others, each in the order of the list. */
function split<T>(list: readonly ObjectRef<T>[], places: Handles): { ready: ObjectRef<T>[]; pending: ObjectRef<T>[] } {
  const ready: ObjectRef<T>[] = [];
  const pending: ObjectRef<T>[] = [];
  let next = 0;
  for (let index = 0; index < list.length; index++) {
    const isReady = index === places[next];
    if (isReady) next++;
    (isReady ? ready : pending).push(list[index] as ObjectRef<T>);
  }
  return { ready, pending };
}

/** Yields each reference when it is ready, in the order in which they become so. */
export async function* asCompleted<R extends ObjectRef<any>>(refs: Iterable<R>): AsyncIterableIterator<R> {
  let pending: ObjectRef[] = [...refs];
  while (pending.length > 0) {
    await wait(pending);
    // All that are ready by now, so that many references cost no look at all of them for each.
    const next = split(pending, native.readyPlaces(handlesOf(pending), pending.length));
    yield* next.ready as R[];
    pending = next.pending;
  }
}

/**
 * Lets go of the views inside a value that get gave, before garbage collection would. They become empty and true is
 * returned where that can be done at once; on immutable views it is a hint and returns false.
 */
export function release(value: unknown): boolean {
  let all: boolean | undefined;
  for (const buffer of buffersIn(value, new Set())) all = native.detachView(buffer) && all !== false;
  return all === true;
}

function* buffersIn(value: unknown, seen: Set<object>): Iterable<ArrayBuffer> {
  if (typeof value !== 'object' || value === null || seen.has(value)) return;
  seen.add(value);
  if (value instanceof ArrayBuffer) yield value;
  else if (ArrayBuffer.isView(value)) {
    const { buffer } = rangeOf(value);
    if (buffer instanceof ArrayBuffer && !seen.has(buffer)) {
      seen.add(buffer);
      yield buffer;
    }
  } else if (value instanceof Map) for (const entry of value) yield* buffersIn(entry, seen);
  else if (Array.isArray(value) || value instanceof Set) for (const item of value) yield* buffersIn(item, seen);
  else if (Object.getPrototypeOf(value) === Object.prototype || Object.getPrototypeOf(value) === null) {
    for (const item of Object.values(value)) yield* buffersIn(item, seen);
  }
}

/**
 * Deletes the data everywhere now, whoever owns the object; a later get throws ObjectFreedError. Views already held stay
 * readable. A name of the object is free again.
 */
export function free(target: ObjectRef | readonly ObjectRef[]): void {
  const refs = target instanceof ObjectRef ? [target] : refsOf(target, 'free()');
  current();
  for (const ref of refs) translated(() => native.free(handleOf(ref)));
}

/** Starts to bring the values here, without waiting for them. */
export function prefetch(target: ObjectRef | readonly ObjectRef[]): void {
  const refs = target instanceof ObjectRef ? [target] : refsOf(target, 'prefetch()');
  current();
  const handles = refs.map(handleOf);
  if (handles.length === 0) return;
  const id = translated(() => native.wait(handles, handles.length, false));
  if (id >= 0) native.endWait(id);
}

/** Where an object is, and how large. */
export async function locate(ref: ObjectRef): Promise<{
  state: 'inline' | 'memory' | 'spilled' | 'pending' | 'lost';
  byteLength: number;
  nodes: string[];
  uri?: string;
}> {
  const [one] = refsOf([ref], 'locate()') as [ObjectRef];
  const { context } = current();
  const [state, byteLength] = translated(() => native.refPlace(handleOf(one)));
  const names = ['inline', 'memory', 'lost', 'spilled'] as const;
  const uri = state === 3 ? translated(() => native.refUri(handleOf(one))) : undefined;
  return {
    state: state < 0 ? 'pending' : (names[state] ?? 'lost'),
    byteLength,
    nodes: state === 0 || state === 1 || state === 3 ? [context.nodeId] : [],
    ...(uri === undefined ? {} : { uri }),
  };
}

/**
 * A byte range of a stored ArrayBuffer or typed array. Of one that is spilled only these bytes are read, and it stays
 * where it is.
 */
export async function getRange(
  ref: ObjectRef<ArrayBufferView | ArrayBuffer>,
  start: number,
  end: number,
  options?: GetOptions,
): Promise<Uint8Array> {
  for (const [name, value] of [
    ['start', start],
    ['end', end],
  ] as const) {
    check.number(value ?? Number.NaN, name, { min: 0, integer: true });
  }
  check.options(options, "getRange()'s options");
  await wait([ref], options);
  const [state, length] = translated(() => native.refPlace(handleOf(ref)));
  if (state === 3) {
    const extent = await translatedAsync(extentOf(handleOf(ref), length));
    if (extent !== undefined) {
      checkRange(ref, start, end, extent.byteLength);
      return translatedAsync(native.readPart(handleOf(ref), extent.offset + start, end - start));
    }
  }
  const value: unknown = await get(ref, options);
  const bytes = ArrayBuffer.isView(value)
    ? bytesOf(value)
    : value instanceof ArrayBuffer
      ? new Uint8Array(value)
      : undefined;
  if (bytes === undefined)
    throw new TypeError(`getRange() reads ArrayBuffers and typed arrays, but ${ref} is ${check.describe(value)}`);
  checkRange(ref, start, end, bytes.byteLength);
  return bytes.subarray(start, end);
}

function checkRange(ref: ObjectRef, start: number, end: number, byteLength: number): void {
  if (start > end || end > byteLength)
    throw new RangeError(`the range ${start} to ${end} lies outside of ${ref}, which has ${byteLength} bytes`);
}

function translatedAsync<R>(promise: Promise<R>): Promise<R> {
  return promise.catch((error: unknown) =>
    translated(() => {
      throw error;
    }),
  );
}

/** Zeroed memory in the shared store to fill in place: `seal()` makes it an object without a copy. */
export function allocate<A extends TypedArray>(
  type: new (buffer: ArrayBuffer, byteOffset: number, length: number) => A,
  length: number,
): Draft<A> {
  current();
  return withRoom(() => allocateDraft(type, length));
}

setStore((draft, from) => {
  current();
  return refOf(
    withRoom(() => putValue(draft)),
    from,
  );
});

/**
 * The object that was put with a name, in the namespace of this session. Named objects outlive the process that stored
 * them. An unknown name throws NameNotFoundError.
 *
 * @example
 * put(new Float64Array(1_000), { name: 'weights' });
 * using ref = await getNamed<Float64Array>('weights');
 */
export async function getNamed<T>(name: string): Promise<ObjectRef<T>> {
  checkName(name ?? null);
  current();
  return adoptRef(translated(() => native.findNamed(name)));
}

/** Says why a reference is not ready yet. */
export function explain(_ref: ObjectRef): Promise<string> {
  return Promise.reject(notYet('explain()'));
}
