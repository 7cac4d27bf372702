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

function contents(a: object, b: object, path: string, seen: Map<unknown, unknown>): string | undefined {
  if (a instanceof Map) {
    return compare([...a], [...(b as Map<unknown, unknown>)], `${path}<map>`, seen);
  }
  if (a instanceof Set) return compare([...a], [...(b as Set<unknown>)], `${path}<set>`, seen);
  if (a instanceof Date) return compare(a.getTime(), (b as Date).getTime(), path, seen);
  if (a instanceof RegExp) return compare(String(a), String(b), path, seen);
  if (a instanceof URL || a instanceof URLSearchParams) return compare(String(a), String(b), path, seen);
  if (a instanceof ArrayBuffer || a instanceof SharedArrayBuffer) {
    return compare([...new Uint8Array(a)], [...new Uint8Array(b as ArrayBuffer)], path, seen);
  }
  if (ArrayBuffer.isView(a)) {
    return compare(bytesOf(a), bytesOf(b as ArrayBufferView), path, seen);
  }
  if (a instanceof Number || a instanceof String || a instanceof Boolean || a instanceof BigInt) {
    return compare(a.valueOf(), b.valueOf(), path, seen);
  }
  return undefined;
}

function bytesOf(view: ArrayBufferView): string {
  return Buffer.from(view.buffer, view.byteOffset, view.byteLength).toString('hex');
}

function properties(a: object, b: object, path: string, seen: Map<unknown, unknown>): string | undefined {
  if (ArrayBuffer.isView(a)) return undefined;
  const keys = Reflect.ownKeys(a);
  if (keys.map(String).join() !== Reflect.ownKeys(b).map(String).join()) {
    return `${path}: keys ${keys.map(String).join()} became ${Reflect.ownKeys(b).map(String).join()}`;
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
