/** The shapes that headers define, kept from message to message, each with code that makes its objects. */
import type { ByteReader } from './byte-reader.cjs';

/** What reads the values of an object. */
export interface ValueReader {
  value(): unknown;
  register<T>(object: T): T;
}

/** A list of keys. */
export interface ReadShape {
  readonly keys: readonly string[];
  /** The bytes that define it. */
  readonly bytes: Uint8Array;
  /** How often objects of it were read, up to {@link FREQUENT}. */
  uses: number;
  /** Makes and reads such an object: all that it makes have one hidden class. */
  make: ((reader: ValueReader) => object) | undefined;
}

/** Definitions are looked for by their first bytes; two that meet in one place take turns. */
const PLACES = 512;
/** Longer definitions are hardly met again. */
const LONGEST = 1024;
const known = new Array<ReadShape | undefined>(PLACES).fill(undefined);

/** Code is made for shapes that are read more often. */
const FREQUENT = 64;
/** Nor is it made for ever more of them. */
const MOST_MADE = 1000;
let made = 0;
/** Writers make dictionaries of objects with more. */
const MOST_KEYS = 64;

/** Reads the definition of a shape. */
export function readShape(reader: ByteReader): ReadShape {
  const { bytes, position } = reader;
  const place = placeOf(bytes, position);
  const found = known[place];
  if (found !== undefined && startsWith(bytes, position, found.bytes)) {
    reader.position = position + found.bytes.length;
    return found;
  }
  const length = reader.count();
  const keys: string[] = [];
  for (let i = 0; i < length; i++) keys.push(reader.text());
  const shape: ReadShape = {
    keys,
    // A copy: that of a Buffer's own method would be the header's memory, which may be used again.
    bytes: Uint8Array.prototype.slice.call(bytes, position, reader.position),
    uses: 0,
    make: undefined,
  };
  if (shape.bytes.length <= LONGEST) known[place] = shape;
  return shape;
}

function placeOf(bytes: Uint8Array, position: number): number {
  let hash = 0;
  const end = Math.min(position + 12, bytes.length);
  for (let at = position; at < end; at++) hash = (hash * 31 + (bytes[at] as number)) | 0;
  return (hash >>> 0) % PLACES;
}

function startsWith(bytes: Uint8Array, position: number, start: Uint8Array): boolean {
  const { length } = start;
  if (position + length > bytes.length) return false;
  for (let i = 0; i < length; i++) if (bytes[position + i] !== start[i]) return false;
  return true;
}

/** Whether assignment of these keys makes own properties on an object with this prototype. */
export function areFree(keys: readonly string[], prototype: object | null): boolean {
  return prototype === null || keys.every((key) => !(key in prototype));
}

/** Notes that an object of a shape is read; the code that makes it, where there is some. */
export function makerOf(shape: ReadShape): ((reader: ValueReader) => object) | undefined {
  if (shape.uses >= FREQUENT) return shape.make;
  shape.uses++;
  const { keys } = shape;
  const isWanted = shape.uses === FREQUENT && made < MOST_MADE && keys.length <= MOST_KEYS;
  if (isWanted && areFree(keys, Object.prototype)) {
    made++;
    shape.make = compile(keys);
  }
  return shape.make;
}

function compile(keys: readonly string[]): ((reader: ValueReader) => object) | undefined {
  const names = keys.map((key) => JSON.stringify(key));
  const source = [
    `const object = { ${names.map((name) => `${name}: undefined`).join(', ')} };`,
    'reader.register(object);',
    ...names.map((name) => `object[${name}] = reader.value();`),
    'return object;',
  ].join('\n');
  try {
    // Of this realm, as the objects must be: a script of node:vm would belong to the outermost one.
    return new Function('reader', source) as (reader: ValueReader) => object;
  } catch {
    // The program forbids code from strings.
    return undefined;
  }
}
