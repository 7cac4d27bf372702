/** Classes whose instances the user turns into other values and back. */

/** How instances of a class travel. */
export interface Serializer<T, D> {
  serialize(value: T): D;
  deserialize(data: D): T;
}

type AnyClass = abstract new (...args: any[]) => unknown;
/** A registered serializer, for a value of a class known only at run time. */
export type AnySerializer = Serializer<unknown, unknown>;

/** Method of a class: `[SERIALIZE](): D`. */
export const SERIALIZE: unique symbol = Symbol.for('heliostat.serialize') as never;
/** Static method of a class: `static [DESERIALIZE](data: D)`. */
export const DESERIALIZE: unique symbol = Symbol.for('heliostat.deserialize') as never;

const registered = new Map<AnyClass, AnySerializer>();
/** Learned from values that came in: what the user registers here goes first, and deregistering leaves these. */
const learned = new WeakMap<AnyClass, AnySerializer>();
let anyKnown = false;

/** Sends instances of `type` through `serializer`, which travels with them. */
export function registerSerializer<T, D>(type: abstract new (...args: any[]) => T, serializer: Serializer<T, D>): void {
  if (typeof type !== 'function') throw new TypeError('registerSerializer: the first argument must be a class');
  if (typeof serializer?.serialize !== 'function' || typeof serializer.deserialize !== 'function') {
    throw new TypeError('registerSerializer: the second argument must have the functions serialize and deserialize');
  }
  registered.set(type, serializer as AnySerializer);
  anyKnown = true;
}

/** Undoes {@link registerSerializer}. */
export function deregisterSerializer(type: abstract new (...args: any[]) => unknown): void {
  registered.delete(type);
  learned.delete(type);
}

/** Keeps a serializer that came with a value, so that the value can be sent on; returns the one to use. */
export function learnSerializer(type: AnyClass, serializer: AnySerializer): AnySerializer {
  const own = serializerOf(type);
  if (own !== undefined) return own;
  learned.set(type, serializer);
  anyKnown = true;
  return serializer;
}

function serializerOf(type: AnyClass): AnySerializer | undefined {
  return registered.get(type) ?? learned.get(type);
}

/** Whether any class was ever given a serializer: most programs never do. */
export function hasSerializers(): boolean {
  return anyKnown;
}

/** The class, of those on the prototype chain, that has a serializer. */
export function registeredType(prototype: object | null): { type: AnyClass; serializer: AnySerializer } | undefined {
  if (!anyKnown) return undefined;
  for (let at = prototype; at !== null; at = Object.getPrototypeOf(at) as object | null) {
    const type = Object.getOwnPropertyDescriptor(at, 'constructor')?.value as AnyClass | undefined;
    if (typeof type !== 'function' || type.prototype !== at) continue;
    const serializer = serializerOf(type);
    if (serializer !== undefined) return { type, serializer };
  }
  return undefined;
}
