/**
 * Builtins by identity: where a value of the runtime is found again in any other process. A function's own name says
 * where to look first; tables of whole modules are made only when that fails, and global getters that would load half
 * of Node are read only for a value of their name.
 */
import { builtinModules, createRequire } from 'node:module';
import { types } from 'node:util';
import { outer } from '../../realm.cjs';
import { ownPrototype, standardKind } from '../kinds.cjs';

/** 'global', 'intrinsic' or a module's name, then keys; a last `get` or `set` names half an accessor. */
export type BuiltinPath = readonly string[];

const load = createRequire(__filename);
const SYMBOL_PREFIX = '@@';
/** How far below a module's exports values are listed. */
const DEPTH = 3;

/** Where a function of the runtime is found; `url` is that of its script, where it has one. */
export function builtinFunction(value: CallableFunction, url: string | undefined): BuiltinPath | undefined {
  return byIntrinsic(value) ?? byGlobalName(value) ?? ofOtherRealm(value) ?? byModule(value, url);
}

/** A builtin class of another realm stands for this realm's. */
function ofOtherRealm(value: CallableFunction): BuiltinPath | undefined {
  const prototype: unknown = Object.getOwnPropertyDescriptor(value, 'prototype')?.value;
  if (typeof prototype !== 'object' || prototype === null || standardKind(prototype) === undefined) return undefined;
  return ownPrototype(prototype) === prototype ? undefined : ['global', value.name];
}

/** Where a namespace or a singleton of the runtime is found. */
export function builtinObject(value: object): BuiltinPath | undefined {
  const name = (value as { constructor?: { name?: unknown } }).constructor?.name;
  for (const [at, types] of SINGLETONS) {
    // Reading some of these starts things: only for a value that may be it.
    if (types.length > 0 && !types.includes(String(name))) continue;
    if (readPath(at) === value) return at;
  }
  const tag = (value as { [Symbol.toStringTag]?: unknown })[Symbol.toStringTag];
  if (typeof tag === 'string' && STANDARD_GLOBALS.has(tag) && readPath(['global', tag]) === value)
    return ['global', tag];
  return byIntrinsic(value) ?? byModule(value, undefined);
}

/** Objects of which a process has one, and what their class is called where asking for them is not free. */
const SINGLETONS: readonly (readonly [BuiltinPath, readonly string[]])[] = [
  [['global'], []],
  [['global', 'process'], []],
  [['global', 'process', 'env'], []],
  [['global', 'console'], []],
  [['global', 'performance'], ['Performance']],
  [['global', 'crypto'], ['Crypto']],
  [
    ['global', 'process', 'stdout'],
    ['WriteStream', 'Socket', 'SyncWriteStream', 'Writable'],
  ],
  [
    ['global', 'process', 'stderr'],
    ['WriteStream', 'Socket', 'SyncWriteStream', 'Writable'],
  ],
  [
    ['global', 'process', 'stdin'],
    ['ReadStream', 'Socket', 'Readable'],
  ],
];

function readPath(path: BuiltinPath): unknown {
  let value: unknown = globalThis;
  for (const key of path.slice(1)) value = (value as Record<string, unknown> | undefined)?.[key];
  return value;
}

function byIntrinsic(value: object): BuiltinPath | undefined {
  for (const [name, intrinsic] of Object.entries(intrinsics())) {
    if (intrinsic === value) return ['intrinsic', name];
    const found = member(intrinsic, ['intrinsic', name], value);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** Tries the places where a function of this name may stand: a global, its members, its prototype's members. */
function byGlobalName(value: CallableFunction): BuiltinPath | undefined {
  const { name } = value;
  if (STANDARD_GLOBALS.has(name) && readPath(['global', name]) === value) return ['global', name];
  for (const global of STANDARD_GLOBALS) {
    const property = Object.getOwnPropertyDescriptor(globalThis, global);
    const root: unknown = property?.value;
    if ((typeof root !== 'function' && typeof root !== 'object') || root === null) continue;
    const path = ['global', global];
    const found =
      member(root, path, value) ?? member((root as { prototype?: unknown }).prototype, [...path, 'prototype'], value);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** The property of an object that holds a value under the value's own name. */
function member(object: unknown, path: BuiltinPath, value: object): BuiltinPath | undefined {
  if ((typeof object !== 'function' && typeof object !== 'object') || object === null) return undefined;
  const parts = /^(?:(get|set) )?(?:\[Symbol\.(\w+)\]|(.+))$/.exec(String((value as { name?: unknown }).name ?? ''));
  if (parts === null) return undefined;
  const [, half, symbol, plain] = parts;
  const key = symbol === undefined ? (plain as string) : `${SYMBOL_PREFIX}${symbol}`;
  const property = propertyOf(object, key);
  if (property === undefined) return undefined;
  if (property.value === value) return [...path, key];
  if (half === 'get' && property.get === value) return [...path, key, 'get'];
  return half === 'set' && property.set === value ? [...path, key, 'set'] : undefined;
}

const tables = new Map<string, Map<unknown, BuiltinPath>>();

/** Looks through the public modules, first through the one whose script defines the value. */
function byModule(value: object, url: string | undefined): BuiltinPath | undefined {
  const hinted = url?.startsWith('node:') === true && builtinModules.includes(url.slice(5)) ? [url.slice(5)] : [];
  for (const name of [...hinted, ...loadedModules()]) {
    let table = tables.get(name);
    if (table === undefined) {
      table = new Map();
      tables.set(name, table);
      list(load(name), [`node:${name}`], DEPTH, table);
    }
    const found = table.get(value);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** Whether a global variable belongs to the program. */
export function isUserGlobal(name: string): boolean {
  return !STANDARD_GLOBALS.has(name) && Object.hasOwn(globalThis, name);
}

/** Whether a function has no JavaScript text. */
export function isNative(value: CallableFunction): boolean {
  return /\{\s*\[native code\]\s*\}$/.test(Function.prototype.toString.call(value));
}

/** The globals of every supported Node: a name is asked for more often than its value is worth looking up. */
const STANDARD_GLOBALS = new Set(
  [
    'AbortController AbortSignal AggregateError Array ArrayBuffer AsyncDisposableStack Atomics BigInt BigInt64Array',
    'BigUint64Array Blob Boolean BroadcastChannel Buffer ByteLengthQueuingStrategy CloseEvent CompressionStream',
    'CountQueuingStrategy Crypto CryptoKey CustomEvent DOMException DataView Date DecompressionStream DisposableStack',
    'Error ErrorEvent EvalError Event EventSource EventTarget File FinalizationRegistry Float16Array Float32Array',
    'Float64Array FormData Function Headers Infinity Int16Array Int32Array Int8Array Intl Iterator JSON Map Math',
    'MessageChannel MessageEvent MessagePort NaN Navigator Number Object Performance PerformanceEntry PerformanceMark',
    'PerformanceMeasure PerformanceObserver PerformanceObserverEntryList PerformanceResourceTiming Promise Proxy',
    'QuotaExceededError RangeError ReadableByteStreamController ReadableStream ReadableStreamBYOBReader',
    'ReadableStreamBYOBRequest ReadableStreamDefaultController ReadableStreamDefaultReader ReferenceError Reflect',
    'RegExp Request Response Set SharedArrayBuffer Storage String SubtleCrypto SuppressedError Symbol SyntaxError',
    'Temporal TextDecoder TextDecoderStream TextEncoder TextEncoderStream TransformStream',
    'TransformStreamDefaultController TypeError URIError URL URLPattern URLSearchParams Uint16Array Uint32Array',
    'Uint8Array Uint8ClampedArray WeakMap WeakRef WeakSet WebAssembly WebSocket WritableStream',
    'WritableStreamDefaultController WritableStreamDefaultWriter atob btoa clearImmediate clearInterval clearTimeout',
    'console crypto decodeURI decodeURIComponent encodeURI encodeURIComponent escape eval fetch global globalThis',
    'isFinite isNaN localStorage navigator parseFloat parseInt performance process queueMicrotask sessionStorage',
    'setImmediate setInterval setTimeout structuredClone undefined unescape',
  ].flatMap((names) => names.split(' ')),
);

let known: Record<string, object> | undefined;

/** Values that no global shows but syntax makes. */
function intrinsics(): Record<string, object> {
  known ??= findIntrinsics();
  return known;
}

function findIntrinsics(): Record<string, object> {
  const asyncFunction = async () => {};
  const generator = function* () {};
  const asyncGenerator = async function* () {};
  const found: Record<string, object> = {
    AsyncFunction: asyncFunction.constructor,
    GeneratorFunction: generator.constructor,
    AsyncGeneratorFunction: asyncGenerator.constructor,
    TypedArray: Object.getPrototypeOf(Uint8Array) as object,
    IteratorPrototype: Object.getPrototypeOf(Object.getPrototypeOf([][Symbol.iterator]())) as object,
    ArrayIteratorPrototype: Object.getPrototypeOf([][Symbol.iterator]()) as object,
    MapIteratorPrototype: Object.getPrototypeOf(new Map()[Symbol.iterator]()) as object,
    SetIteratorPrototype: Object.getPrototypeOf(new Set()[Symbol.iterator]()) as object,
    StringIteratorPrototype: Object.getPrototypeOf(''[Symbol.iterator]()) as object,
    AsyncIteratorPrototype: Object.getPrototypeOf(
      Object.getPrototypeOf(asyncGenerator.constructor.prototype.prototype as object),
    ) as object,
  };
  for (const name of ['AsyncFunction', 'GeneratorFunction', 'AsyncGeneratorFunction']) {
    const { prototype } = found[name] as { prototype: { prototype?: object } };
    found[`${name}Prototype`] = prototype;
    if (prototype.prototype !== undefined) found[`${name}PrototypePrototype`] = prototype.prototype;
  }
  return found;
}

/** Public modules that this process has loaded: a value of another one cannot have been met. */
function loadedModules(): string[] {
  const { moduleLoadList } = outer.process as unknown as { moduleLoadList: string[] };
  const loaded = new Set(moduleLoadList.map((entry) => entry.replace(/^NativeModule /, '')));
  return builtinModules.filter(
    (name) => loaded.has(name) && !name.startsWith('_') && !['punycode', 'sys', 'wasi'].includes(name),
  );
}

function list(value: unknown, path: BuiltinPath, depth: number, table: Map<unknown, BuiltinPath>): void {
  if ((typeof value !== 'object' && typeof value !== 'function') || value === null) return;
  if (table.has(value) || types.isProxy(value)) return;
  table.set(value, path);
  if (depth === 0) return;
  for (const key of Reflect.ownKeys(value)) {
    const segment = keySegment(key);
    // `module._cache` and the like lead to the program's own objects.
    if (segment === undefined || segment.startsWith('_') || segment === 'mainModule') continue;
    const property = Object.getOwnPropertyDescriptor(value, key);
    if (property === undefined) continue;
    const next = [...path, segment];
    if (property.get !== undefined && !table.has(property.get)) table.set(property.get, [...next, 'get']);
    if (property.set !== undefined && !table.has(property.set)) table.set(property.set, [...next, 'set']);
    const held: unknown = property.value;
    if (typeof held === 'function' || (depth > 1 && typeof held === 'object')) list(held, next, depth - 1, table);
  }
}

function keySegment(key: string | symbol): string | undefined {
  if (typeof key === 'string') return key.startsWith(SYMBOL_PREFIX) ? undefined : key;
  const name = key.description?.replace(/^Symbol\./, '');
  return name !== undefined && (Symbol as unknown as Record<string, unknown>)[name] === key
    ? `${SYMBOL_PREFIX}${name}`
    : undefined;
}

/** Finds a builtin again. Below modules only data properties are read. */
export function resolveBuiltin(path: BuiltinPath): unknown {
  const [origin, ...keys] = path;
  let value: unknown;
  if (origin === 'global') value = globalThis;
  else if (origin === 'intrinsic') value = intrinsics()[keys.shift() ?? ''];
  else if (origin?.startsWith('node:') === true) value = load(origin);
  for (let i = 0; i < keys.length; i++) {
    const property = propertyOf(value, keys[i] as string);
    if (property === undefined) return undefined;
    const half = i === keys.length - 2 ? keys[i + 1] : undefined;
    if (half === 'get' && property.get !== undefined) return property.get;
    if (half === 'set' && property.set !== undefined) return property.set;
    // The runtime's own getters: no path of ours leads to others.
    value = 'value' in property || origin !== 'global' ? property.value : property.get?.call(value);
  }
  return value;
}

function propertyOf(value: unknown, segment: string): PropertyDescriptor | undefined {
  if ((typeof value !== 'object' && typeof value !== 'function') || value === null) return undefined;
  const key = segment.startsWith(SYMBOL_PREFIX)
    ? (Symbol as unknown as Record<string, symbol>)[segment.slice(SYMBOL_PREFIX.length)]
    : segment;
  return key === undefined ? undefined : Object.getOwnPropertyDescriptor(value, key);
}
