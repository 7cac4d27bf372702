/**
 * What an object is by its internal slots, whatever its prototype says, and which objects live in this process only.
 */
import { types } from 'node:util';

/** An object's inner kind. */
export enum Kind {
  Plain,
  Array,
  Map,
  Set,
  Date,
  RegExp,
  Error,
  DomException,
  Buffer,
  View,
  Boxed,
  Url,
  UrlSearchParams,
}

/** The prototypes that need not be sent: kind and record say them. */
const STANDARD = new Map<object, Kind>([
  [Object.prototype, Kind.Plain],
  [Array.prototype, Kind.Array],
  [Map.prototype, Kind.Map],
  [Set.prototype, Kind.Set],
  [Date.prototype, Kind.Date],
  [RegExp.prototype, Kind.RegExp],
  [ArrayBuffer.prototype, Kind.Buffer],
  [SharedArrayBuffer.prototype, Kind.Buffer],
  [DataView.prototype, Kind.View],
  [Number.prototype, Kind.Boxed],
  [String.prototype, Kind.Boxed],
  [Boolean.prototype, Kind.Boxed],
  [BigInt.prototype, Kind.Boxed],
  [Symbol.prototype, Kind.Boxed],
  [URL.prototype, Kind.Url],
  [URLSearchParams.prototype, Kind.UrlSearchParams],
  [DOMException.prototype, Kind.DomException],
  [Buffer.prototype, Kind.View],
]);
for (const type of [Error, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError, AggregateError]) {
  STANDARD.set(type.prototype, Kind.Error);
}
for (const name of Object.getOwnPropertyNames(globalThis)) {
  if (!/^(Big)?(Int|Uint|Float)\d+(Clamped)?Array$/.test(name)) continue;
  STANDARD.set((globalThis as unknown as Record<string, { prototype: object }>)[name]!.prototype, Kind.View);
}

/** The kind whose objects have this prototype when nobody has changed it. */
export function standardKind(prototype: object): Kind | undefined {
  return STANDARD.get(prototype);
}

/** Whether an object has the inner slots of a kind. */
export function isOfKind(value: object, kind: Kind): boolean {
  switch (kind) {
    case Kind.Plain:
      return kindOf(value) === Kind.Plain;
    case Kind.Array:
      return Array.isArray(value);
    case Kind.Map:
      return types.isMap(value);
    case Kind.Set:
      return types.isSet(value);
    case Kind.Date:
      return types.isDate(value);
    case Kind.RegExp:
      return types.isRegExp(value);
    case Kind.Error:
      return types.isNativeError(value);
    case Kind.Buffer:
      return types.isAnyArrayBuffer(value);
    case Kind.View:
      return ArrayBuffer.isView(value);
    case Kind.Boxed:
      return types.isBoxedPrimitive(value);
    case Kind.DomException:
      return isDomException(value);
    case Kind.Url:
      return isUrl(value);
    case Kind.UrlSearchParams:
      return isUrlSearchParams(value);
  }
}

/** The kind of any object that has no standard prototype. */
export function kindOf(value: object): Kind {
  if (Array.isArray(value)) return Kind.Array;
  if (ArrayBuffer.isView(value)) return Kind.View;
  if (types.isMap(value)) return Kind.Map;
  if (types.isSet(value)) return Kind.Set;
  if (types.isDate(value)) return Kind.Date;
  if (types.isRegExp(value)) return Kind.RegExp;
  if (isDomException(value)) return Kind.DomException;
  if (types.isNativeError(value)) return Kind.Error;
  if (types.isAnyArrayBuffer(value)) return Kind.Buffer;
  if (types.isBoxedPrimitive(value)) return Kind.Boxed;
  if (isUrl(value)) return Kind.Url;
  if (isUrlSearchParams(value)) return Kind.UrlSearchParams;
  return Kind.Plain;
}

/** Whether an object has inner slots although others with its prototype have none. */
export function isExotic(value: object): boolean {
  return (
    Array.isArray(value) ||
    ArrayBuffer.isView(value) ||
    types.isNativeError(value) ||
    types.isMap(value) ||
    types.isSet(value) ||
    types.isPromise(value)
  );
}

const hrefOf = getterOf(URL.prototype, 'href');
const codeOf = getterOf(DOMException.prototype, 'code');
const sizeOf = getterOf(URLSearchParams.prototype, 'size');

function getterOf(prototype: object, name: string): (this: unknown) => unknown {
  const get = Object.getOwnPropertyDescriptor(prototype, name)?.get;
  if (get === undefined) throw new TypeError(`this runtime has no getter ${name}`);
  return get;
}

/** Platform objects show themselves only by what their getters accept; ask after the cheaper instanceof. */
function accepts(get: (this: unknown) => unknown, value: object): boolean {
  try {
    get.call(value);
    return true;
  } catch {
    return false;
  }
}

function isUrl(value: object): boolean {
  return value instanceof URL && accepts(hrefOf, value);
}

function isUrlSearchParams(value: object): boolean {
  return value instanceof URLSearchParams && accepts(sizeOf, value);
}

function isDomException(value: object): boolean {
  return value instanceof DOMException && accepts(codeOf, value);
}

/** Why an object of no sendable kind cannot go; undefined when nothing speaks against it. */
export function localOnly(value: object): { reason: string; hint: string } | undefined {
  if (types.isPromise(value)) {
    return { reason: 'is a Promise', hint: 'Await it first, or pass an ObjectRef' };
  }
  if (types.isWeakMap(value) || types.isWeakSet(value) || value instanceof WeakRef) {
    return { reason: 'is weak (WeakMap, WeakSet, WeakRef): its contents cannot be listed', hint: 'Use a Map or a Set' };
  }
  if (types.isGeneratorObject(value)) {
    return { reason: 'is a running generator', hint: 'Send the generator function and call it there' };
  }
  if (types.isExternal(value)) return { reason: 'is a pointer of native code', hint: 'Make it where it is used' };
  if (types.isArgumentsObject(value)) return { reason: 'is an arguments object', hint: 'Send [...arguments]' };
  if (types.isMapIterator(value) || types.isSetIterator(value) || isBuiltinIterator(value)) {
    return { reason: 'is an iterator that is under way', hint: 'Send what it iterates over, or [...iterator]' };
  }
  if (Object.prototype.toString.call(value).startsWith('[object WebAssembly.')) {
    return { reason: 'is an object of WebAssembly', hint: 'Send the bytes and compile them there' };
  }
  return undefined;
}

const ITERATOR_PROTOTYPE = Object.getPrototypeOf(Object.getPrototypeOf([][Symbol.iterator]())) as object;

function isBuiltinIterator(value: object): boolean {
  if (!Object.prototype.isPrototypeOf.call(ITERATOR_PROTOTYPE, value)) return false;
  const next = (value as { next?: unknown }).next;
  return typeof next === 'function' && /\{\s*\[native code\]\s*\}$/.test(Function.prototype.toString.call(next));
}
