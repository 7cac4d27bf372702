import { types } from 'node:util';

/**
 * Whether two values cannot be told apart: prototypes, attributes, symbols, holes, -0, NaN, identity and cycles count.
 * Returns the first difference.
 */
export function difference(a: unknown, b: unknown): string | undefined {
  return compare(a, b, '$', new Map());
}

function compare(a: unknown, b: unknown, path: string, seen: Map<unknown, unknown>): string | undefined {
  if (!isObject(a) || !isObject(b)) {
    if (Object.is(a, b)) return undefined;
    return `${path}: ${String(a)} became ${String(b)}`;
  }
  if (seen.has(a)) return seen.get(a) === b ? undefined : `${path}: is another object than before`;
  for (const known of seen.values()) if (known === b) return `${path}: two objects became one`;
  seen.set(a, b);
  if (Object.getPrototypeOf(a) !== Object.getPrototypeOf(b)) return `${path}: another prototype`;
  if (Object.prototype.toString.call(a) !== Object.prototype.toString.call(b)) return `${path}: another kind`;
  if (Object.isFrozen(a) !== Object.isFrozen(b) || Object.isExtensible(a) !== Object.isExtensible(b)) {
    return `${path}: other extensibility`;
  }
  return contents(a, b, path, seen) ?? properties(a, b, path, seen);
}

function isObject(value: unknown): value is object {
  return (typeof value === 'object' && value !== null) || typeof value === 'function';
}

/** By what the classes themselves say: an object's own properties may have any name. */
function contents(a: object, b: object, path: string, seen: Map<unknown, unknown>): string | undefined {
  if (types.isMap(a)) return compare(entries(a), entries(b as Map<unknown, unknown>), `${path}<map>`, seen);
  if (types.isSet(a)) return compare(items(a), items(b as Set<unknown>), `${path}<set>`, seen);
  if (types.isDate(a)) return compare(Date.prototype.getTime.call(a), Date.prototype.getTime.call(b), path, seen);
  if (types.isRegExp(a)) return compare(patternOf(a), patternOf(b as RegExp), path, seen);
  if (a instanceof URL) return compare(hrefOf.call(a), hrefOf.call(b), path, seen);
  if (a instanceof URLSearchParams) {
    const text = (value: unknown) => URLSearchParams.prototype.toString.call(value);
    return compare(text(a), text(b), path, seen);
  }
  if (types.isAnyArrayBuffer(a)) {
    return (
      compare(hexOf(new Uint8Array(a)), hexOf(new Uint8Array(b as ArrayBuffer)), path, seen) ??
      memory(a, 0, b as ArrayBuffer, 0, path, seen)
    );
  }
  if (a instanceof DOMException) return compare(exceptionOf(a), exceptionOf(b), path, seen);
  if (ArrayBuffer.isView(a)) {
    const before = shownBy(a);
    const after = shownBy(b as ArrayBufferView);
    const found = compare(hexOf(before), hexOf(after), path, seen);
    // Node's Buffers share memory by accident: what matters of them is what they show.
    if (found !== undefined || Buffer.isBuffer(a) || before.byteLength === 0) return found;
    return memory(before.buffer, before.byteOffset, after.buffer, after.byteOffset, path, seen);
  }
  for (const type of [Number, String, Boolean, BigInt, Symbol]) {
    if (!(a instanceof type)) continue;
    const unbox = type.prototype.valueOf as (this: unknown) => unknown;
    return compare(unbox.call(a), unbox.call(b), path, seen);
  }
  return undefined;
}

function getter(prototype: object, name: string): (this: unknown) => unknown {
  return Object.getOwnPropertyDescriptor(prototype, name)?.get as () => unknown;
}

const EXCEPTION = ['message', 'name'].map((name) => getter(DOMException.prototype, name));

function exceptionOf(value: unknown): string {
  return EXCEPTION.map((get) => get.call(value)).join();
}

const SHOWN = ['buffer', 'byteOffset', 'byteLength'] as const;
const ofTyped = SHOWN.map((name) => getter(Object.getPrototypeOf(Uint8Array.prototype), name));
const ofDataView = SHOWN.map((name) => getter(DataView.prototype, name));

/** A fresh view of the bytes that a view shows. */
function shownBy(view: ArrayBufferView): Uint8Array {
  const [buffer, byteOffset, byteLength] = (types.isTypedArray(view) ? ofTyped : ofDataView).map((get) =>
    get.call(view),
  );
  return new Uint8Array(buffer as ArrayBuffer, byteOffset as number, byteLength as number);
}

const hrefOf = Object.getOwnPropertyDescriptor(URL.prototype, 'href')?.get as () => string;
const sourceOf = Object.getOwnPropertyDescriptor(RegExp.prototype, 'source')?.get as () => string;
const FLAGS = ['hasIndices', 'global', 'ignoreCase', 'multiline', 'dotAll', 'unicode', 'unicodeSets', 'sticky'];

function patternOf(value: RegExp): string {
  const flags = FLAGS.filter((flag) => {
    return Object.getOwnPropertyDescriptor(RegExp.prototype, flag)?.get?.call(value) === true;
  });
  return `/${sourceOf.call(value)}/ ${flags.join()}`;
}

function entries(map: Map<unknown, unknown>): unknown[] {
  return [...Map.prototype.entries.call(map)].flat(1);
}

function items(set: Set<unknown>): unknown[] {
  return [...Set.prototype.values.call(set)];
}

function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

/** Views of one buffer are views of one buffer on the other side, as far from each other as before. */
interface Origin {
  readonly buffer: ArrayBufferLike;
  readonly distance: number;
}
const origins = new WeakMap<Map<unknown, unknown>, Map<ArrayBufferLike, Origin>>();

function memory(
  a: ArrayBufferLike,
  from: number,
  b: ArrayBufferLike,
  to: number,
  path: string,
  seen: Map<unknown, unknown>,
): string | undefined {
  let known = origins.get(seen);
  if (known === undefined) {
    known = new Map();
    origins.set(seen, known);
  }
  const origin = known.get(a);
  if (origin === undefined) {
    known.set(a, { buffer: b, distance: from - to });
    return undefined;
  }
  if (origin.buffer !== b) return `${path}: no longer shares its memory`;
  return origin.distance === from - to ? undefined : `${path}: shows another part of its memory`;
}

/** The own keys; of a view without those of its elements, which come first. */
export function keysOf(value: object): (string | symbol)[] {
  const keys = Reflect.ownKeys(value);
  if (!types.isTypedArray(value)) return keys;
  let first = 0;
  while (keys[first] === String(first)) first++;
  return keys.slice(first);
}

function properties(a: object, b: object, path: string, seen: Map<unknown, unknown>): string | undefined {
  const keys = keysOf(a);
  const after = keysOf(b);
  if (keys.length !== after.length || keys.some((key, at) => String(key) !== String(after[at]))) {
    return `${path}: keys ${keys.map(String).join()} became ${after.map(String).join()}`;
  }
  for (const key of keys) {
    const inside = `${path}.${String(key)}`;
    const before = Object.getOwnPropertyDescriptor(a, key) as PropertyDescriptor;
    const after = Object.getOwnPropertyDescriptor(b, key) as PropertyDescriptor;
    // The stack is an accessor of the runtime's from Node 22 on, and travels as text.
    if (a instanceof Error && key === 'stack') {
      const found = compare(a.stack, (b as Error).stack, inside, seen);
      if (found !== undefined) return found;
      continue;
    }
    for (const attribute of ['enumerable', 'configurable', 'writable'] as const) {
      if (before[attribute] !== after[attribute]) return `${inside}: ${attribute} is lost`;
    }
    const found = compare(before.value, after.value, inside, seen);
    if (found !== undefined) return found;
    if ((before.get === undefined) !== (after.get === undefined)) return `${inside}: the accessor is lost`;
  }
  return undefined;
}
