/**
 * Apache Arrow, without importing it. Its tables, record batches and data are instances like others, whose classes are
 * imported by name; their columns are buffers. Vectors hold functions that close over their data, so they are made again
 * by the constructor, from their data.
 */
import { Tag } from './format.cjs';
import { defineReaders, type Reader } from './reader.cjs';
import { MalformedHeader, Refusal } from './refusal.cjs';

/** What Arrow marks the prototype of its vectors with. */
const VECTOR = Symbol.for('apache-arrow/Vector');

/** What constructor and `memoize` put on a vector. */
const MADE = new Set<string | symbol>(
  'isValid get set indexOf _offsets data type stride numChildren length slice isMemoized unmemoize memoize'.split(' '),
);

type VectorClass = new (data: readonly object[]) => { memoize(): object };

/** A vector as its parts. */
export interface VectorParts {
  readonly type: VectorClass;
  readonly data: readonly object[];
  /** Whether it keeps what it decoded: what it has decoded so far stays here. */
  readonly isMemoized: boolean;
}

/** The parts of a vector of Arrow; undefined for other objects. */
export function vectorParts(value: object): VectorParts | undefined {
  if ((value as { [VECTOR]?: unknown })[VECTOR] !== true || Object.hasOwn(value, VECTOR)) return undefined;
  const { data } = value as VectorParts;
  // The prototype of a vector of several chunks is one without a class.
  let prototype = Object.getPrototypeOf(value) as object | null;
  while (prototype !== null && !Object.hasOwn(prototype, VECTOR)) {
    prototype = Object.getPrototypeOf(prototype) as object | null;
  }
  if (prototype === null || !Array.isArray(data)) return undefined;
  if (!Object.isExtensible(value) || Reflect.ownKeys(value).some((key) => !MADE.has(key))) {
    throw new Refusal('is an Arrow vector with properties of its own', 'Send them beside it');
  }
  const type = prototype.constructor as VectorClass;
  return { type, data, isMemoized: Object.hasOwn(value, 'isMemoized') };
}

defineReaders({ [Tag.ArrowVector]: readVector });

function readVector(reader: Reader): object {
  // A header without code cannot get a constructor called.
  const { functions } = reader;
  const id = reader.announce();
  const memoized = reader.byte();
  const type = reader.object() as VectorClass;
  const data = reader.value();
  if (typeof type !== 'function' || !Array.isArray(data)) throw new MalformedHeader('an Arrow vector is odd');
  functions.flush();
  const vector = new type(data as object[]);
  return reader.resolve(id, memoized === 1 ? vector.memoize() : vector);
}
