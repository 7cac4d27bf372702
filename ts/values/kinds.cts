/**
 * What an object is by its internal slots, whatever its prototype says, and which objects live in this process only.
 */
import { types } from 'node:util';
import { ERROR_NAMES } from './format.cjs';

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

/** The builtin classes that need not be sent: kind and record say them. */
const BUILTINS: readonly (readonly [Kind, readonly string[]])[] = [
  [Kind.Plain, ['Object']],
  [Kind.Array, ['Array']],
  [Kind.Map, ['Map']],
  [Kind.Set, ['Set']],
  [Kind.Date, ['Date']],
  [Kind.RegExp, ['RegExp']],
  [Kind.Buffer, ['ArrayBuffer', 'SharedArrayBuffer']],
  [Kind.View, ['DataView', 'Buffer']],
  [Kind.Boxed, ['Number', 'String', 'Boolean', 'BigInt', 'Symbol']],
  [Kind.Url, ['URL']],
  [Kind.UrlSearchParams, ['URLSearchParams']],
  [Kind.DomException, ['DOMException']],
  [Kind.Error, ERROR_NAMES],
  [
    Kind.View,
    Object.getOwnPropertyNames(globalThis).filter((name) => /^(Big)?(Int|Uint|Float)\d+(Clamped)?Array$/.test(name)),
  ],
];

/** What a prototype stands for. */
interface Standard {
  readonly kind: Kind;
  /** The prototype of that name in this realm: itself, unless it comes from another one. */
  readonly prototype: object;
}

/** By prototype; null for those of classes of the program. */
const STANDARD = new WeakMap<object, Standard | null>();
const byName = new Map<string, Standard>();
for (const [kind, names] of BUILTINS) {
  for (const name of names) {
    const { prototype } = (globalThis as unknown as Record<string, { prototype: object }>)[name]!;
    byName.set(name, { kind, prototype });
    STANDARD.set(prototype, { kind, prototype });
  }
}

function standardOf(prototype: object): Standard | null {
  let found = STANDARD.get(prototype);
  if (found === undefined) {
    found = ofOtherRealm(prototype) ?? null;
    STANDARD.set(prototype, found);
  }
  return found;
}

/** Prototypes of builtins in other realms (vm contexts, and what Node itself makes inside one) have their names. */
function ofOtherRealm(prototype: object): Standard | undefined {
  if (types.isProxy(prototype)) return undefined;
  const type: unknown = Object.getOwnPropertyDescriptor(prototype, 'constructor')?.value;
  if (typeof type !== 'function' || type.prototype !== prototype || !isNativeText(type)) return undefined;
  const standard = byName.get(type.name);
  if (standard === undefined) return undefined;
  const parent = Object.getPrototypeOf(prototype) as object | null;
  // Only Object's own prototype has none; everything else stands on builtins as well.
  if ((standard.kind === Kind.Plain) !== (parent === null)) return undefined;
  return standard;
}

/** Whether a function is the runtime's. */
export function isNativeText(value: CallableFunction): boolean {
  return /\{\s*\[native code\]\s*\}$/.test(Function.prototype.toString.call(value));
}

const functionPrototypes = new WeakSet<object>();

/** Whether functions have this prototype, in any realm, when nobody has changed it. */
export function isFunctionPrototype(prototype: object | null): boolean {
  if (prototype === null || functionPrototypes.has(prototype)) return prototype !== null;
  const type: unknown = Object.getOwnPropertyDescriptor(prototype, 'constructor')?.value;
  if (typeof type !== 'function' || type.prototype !== prototype || !isNativeText(type)) return false;
  if (!/^(Async)?(Generator)?Function$/.test(type.name)) return false;
  functionPrototypes.add(prototype);
  return true;
}

/** The kind whose objects have this prototype when nobody has changed it. */
export function standardKind(prototype: object): Kind | undefined {
  return standardOf(prototype)?.kind;
}

/** This realm's prototype in place of another realm's of the same name. */
export function ownPrototype(prototype: object): object {
  return standardOf(prototype)?.prototype ?? prototype;
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
  if (
    types.isWeakMap(value) ||
    types.isWeakSet(value) ||
    Object.prototype.toString.call(value) === '[object WeakRef]'
  ) {
    return {
      reason: 'is weak (WeakMap, WeakSet, WeakRef): its contents cannot be listed',
      hint: 'Use a Map or a Set; what a package keeps in one (a schema of zod) is made inside the function instead',
    };
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
  const isIterator =
    Object.prototype.isPrototypeOf.call(ITERATOR_PROTOTYPE, value) ||
    Object.prototype.toString.call(value).endsWith(' Iterator]');
  if (!isIterator) return false;
  const next = (value as { next?: unknown }).next;
  return typeof next === 'function' && isNativeText(next);
}
