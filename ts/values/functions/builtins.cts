/**
 * Builtins by identity: where a value of the runtime is found again in any other process. Nothing is listed before a
 * native function or a namespace object is met.
 */
import { builtinModules, createRequire } from 'node:module';
import { types } from 'node:util';

/** 'global', 'intrinsic' or a module's name, then keys; a last `get` or `set` names half an accessor. */
export type BuiltinPath = readonly string[];

const load = createRequire(__filename);
const SYMBOL_PREFIX = '@@';
/** Objects below the global object and below modules that are namespaces in their own right. */
const DEPTH = 3;
/** Reading them would warn, or start something. */
const UNREAD_GLOBALS = new Set(['localStorage', 'sessionStorage', 'navigator', 'crypto']);

let paths: Map<unknown, BuiltinPath> | undefined;

/** Where a value of the runtime is found, if it is one. */
export function builtinPath(value: object): BuiltinPath | undefined {
  return table().get(value);
}

/** Whether a global variable belongs to the program. */
export function isUserGlobal(name: string): boolean {
  return !STANDARD_GLOBALS.has(name) && Object.hasOwn(globalThis, name);
}

function table(): Map<unknown, BuiltinPath> {
  if (paths !== undefined) return paths;
  paths = new Map<unknown, BuiltinPath>([[globalThis, ['global']]]);
  for (const name of ['Object', 'Function', 'Array', 'Promise', 'Error', 'process', 'console']) {
    add((globalThis as unknown as Record<string, unknown>)[name], ['global', name], DEPTH);
  }
  for (const name of Object.getOwnPropertyNames(globalThis)) {
    const property = Object.getOwnPropertyDescriptor(globalThis, name);
    if (property === undefined || UNREAD_GLOBALS.has(name) || !STANDARD_GLOBALS.has(name)) continue;
    add('value' in property ? property.value : readGetter(property), ['global', name], DEPTH);
  }
  for (const [name, value] of Object.entries(intrinsics())) add(value, ['intrinsic', name], 2);
  for (const name of loadedModules()) {
    try {
      add(load(name), [`node:${name}`], DEPTH);
    } catch {
      // A module that this build of Node refuses to load has no values either.
    }
  }
  return paths;
}

function readGetter(property: PropertyDescriptor): unknown {
  try {
    return property.get?.call(globalThis) as unknown;
  } catch {
    return undefined;
  }
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

/** Values that no global shows but syntax makes. */
function intrinsics(): Record<string, object> {
  const asyncFunction = async function () {};
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
  const { moduleLoadList } = process as unknown as { moduleLoadList: string[] };
  const loaded = new Set(moduleLoadList.map((entry) => entry.replace(/^NativeModule /, '')));
  return builtinModules.filter(
    (name) => loaded.has(name) && !name.startsWith('_') && !['punycode', 'sys', 'wasi'].includes(name),
  );
}

function add(value: unknown, path: BuiltinPath, depth: number): void {
  if ((typeof value !== 'object' && typeof value !== 'function') || value === null) return;
  const known = paths as Map<unknown, BuiltinPath>;
  if (known.has(value) || types.isProxy(value)) return;
  known.set(value, path);
  if (depth === 0) return;
  for (const key of Reflect.ownKeys(value)) {
    const segment = keySegment(key);
    // `module._cache` and the like lead to the program's own objects.
    if (segment === undefined || segment.startsWith('_') || segment === 'mainModule') continue;
    const property = Object.getOwnPropertyDescriptor(value, key);
    if (property === undefined) continue;
    const next = [...path, segment];
    if (property.get !== undefined && !known.has(property.get)) known.set(property.get, [...next, 'get']);
    if (property.set !== undefined && !known.has(property.set)) known.set(property.set, [...next, 'set']);
    const held: unknown = property.value;
    if (typeof held === 'function' || (depth > 1 && typeof held === 'object')) add(held, next, depth - 1);
  }
}

function keySegment(key: string | symbol): string | undefined {
  if (typeof key === 'string') return key.startsWith(SYMBOL_PREFIX) ? undefined : key;
  const name = key.description?.replace(/^Symbol\./, '');
  return name !== undefined && (Symbol as unknown as Record<string, unknown>)[name] === key
    ? `${SYMBOL_PREFIX}${name}`
    : undefined;
}

/** Finds a builtin again. Reads data properties only, so that no path can run anything. */
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
    value = 'value' in property || origin !== 'global' || i > 0 ? property.value : readGetter(property);
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
