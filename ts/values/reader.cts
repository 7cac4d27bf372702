/** The value reader: one pass, every count and bound checked against the bytes that are there. */

import type { Buffers } from './buffer-reader.cjs';
import { readBuffers } from './buffer-reader.cjs';
import { ByteReader, latin1Slice, ucs2Slice } from './byte-reader.cjs';
import { FLAG_CODE, FLAG_MODULES, PREFIX_LENGTH, SMALL_INT, Tag, VERSION, wellKnownSymbol } from './format.cjs';
import type { FunctionReader } from './functions/function-reader.cjs';
import { symbolById } from './identity.cjs';
import { areFree, makerOf, type ReadShape, readShape } from './read-shapes.cjs';
import { MalformedHeader, Refusal } from './refusal.cjs';

/** What decode needs beside the header. */
export interface DecodeSource {
  header: Uint8Array;
  /** One per out-of-band buffer, exactly its bytes. */
  buffers: ArrayBuffer[];
  /** Gives the ObjectRef for an index. */
  refs: (index: number) => object;
  /** Lets go of a buffer that nothing of the value shows. */
  release?: (buffer: ArrayBuffer) => void;
  /** Applied to each small buffer of the header after copying. */
  own?: (buffer: ArrayBuffer) => ArrayBuffer;
}

// The commonest tags are told apart before the table: as constants, which cost less than an enum's properties.
const LATIN1 = Tag.Latin1;
const SHAPED = Tag.Shaped;
const INT = Tag.Int;
const DOUBLE = Tag.Double;

type TagReader = (reader: Reader) => unknown;

const readers: (TagReader | undefined)[] = [];

/** Adds the readers of some tags. */
export function defineReaders(table: { readonly [tag in Tag]?: TagReader }): void {
  for (const tag of Object.keys(table)) readers[Number(tag)] = table[Number(tag) as Tag];
}

/** Stands for an object that is not made yet. */
const UNMADE = Symbol('unmade');

export class Reader extends ByteReader {
  readonly source: DecodeSource;
  readonly objects: unknown[] = [];
  private readonly shapes: ReadShape[] = [];
  private waiting: Map<number, ((value: unknown) => void)[]> | undefined;
  private readonly buffers: Buffers | undefined;
  private readonly end: number;
  private functionReader: FunctionReader | undefined;
  /** What the record that follows must become: an object with this prototype, or this very object. */
  private pending: { prototype: object | null; object: object | undefined } | undefined;

  constructor(source: DecodeSource) {
    super(source.header);
    this.source = source;
    const { flags, tables } = readPrefix(this);
    this.end = tables === 0 ? this.bytes.length : tables;
    if (tables !== 0) {
      this.position = tables;
      const modules = (flags & FLAG_MODULES) !== 0 ? loadImports().readModules(this) : [];
      this.buffers = readBuffers(this, source);
      if ((flags & FLAG_CODE) !== 0) {
        // Loaded at the first function, as in the writer.
        const loaded = require('./functions/function-reader.cjs') as typeof import('./functions/function-reader.cjs');
        this.functionReader = new loaded.FunctionReader(this, modules);
      }
      if (this.position !== this.bytes.length) throw new MalformedHeader('bytes are left over');
      this.position = PREFIX_LENGTH;
    }
  }

  /** The whole message. */
  message(): unknown {
    const value = this.value();
    this.functionReader?.flush();
    if (this.position !== this.end) throw new MalformedHeader('bytes are left over');
    return value;
  }

  /** The part that reads functions; a header without code has none. */
  get functions(): FunctionReader {
    if (this.functionReader === undefined) throw new MalformedHeader('it holds code without saying so');
    return this.functionReader;
  }

  /** Any value. */
  value(): unknown {
    const tag = this.byte();
    if (tag >= SMALL_INT) return tag - SMALL_INT;
    if (tag === LATIN1) return this.latin1();
    if (tag === SHAPED) return this.shaped();
    if (tag === INT) return this.zigzag();
    if (tag === DOUBLE) return this.double();
    const read = readers[tag];
    if (read === undefined) throw new MalformedHeader(`tag ${tag} is unknown`);
    return read(this);
  }

  /** A value that must be an object or a function. */
  object(): object {
    const value = this.value();
    if ((typeof value !== 'object' || value === null) && typeof value !== 'function') {
      throw new MalformedHeader('an object is missing');
    }
    return value;
  }

  /** Gives the next identity to an object. */
  register<T>(object: T): T {
    this.objects.push(object);
    return object;
  }

  /** Takes the next identity for an object that is made later. */
  announce(): number {
    return this.objects.push(UNMADE) - 1;
  }

  /** Makes an announced object known, also to the places that wait for it. */
  resolve<T>(id: number, object: T): T {
    this.objects[id] = object;
    const waiting = this.waiting?.get(id);
    if (waiting !== undefined) {
      this.waiting?.delete(id);
      for (const assign of waiting) assign(object);
    }
    return object;
  }

  backReference(): unknown {
    const id = this.varint();
    if (id >= this.objects.length) throw new MalformedHeader('it refers to an object that does not come');
    const object = this.objects[id];
    if (object === UNMADE) throw new MalformedHeader('it refers to an object before it is made');
    return object;
  }

  /** Reads a value for a place that may be filled later. */
  slot(assign: (value: unknown) => void): void {
    if (this.bytes[this.position] === Tag.BackReference) {
      const start = this.position++;
      const id = this.varint();
      if (this.objects[id] === UNMADE) {
        this.waiting ??= new Map();
        const waiting = this.waiting.get(id);
        if (waiting === undefined) this.waiting.set(id, [assign]);
        else waiting.push(assign);
        return;
      }
      this.position = start;
    }
    assign(this.value());
  }

  /** Reads the record of an object that has a given prototype, or is already made. */
  instance(prototype: object | null, made?: object): unknown {
    this.pending = { prototype, object: made };
    const value = this.value();
    this.pending = undefined;
    return value;
  }

  /** Registers a fresh object of a builtin kind; gives it the prototype that an instance announced before it. */
  adopt<T extends object>(fresh: T): T {
    const { pending } = this;
    if (pending === undefined) return this.register(fresh);
    this.pending = undefined;
    if (pending.object !== undefined) return this.register(pending.object as T);
    Object.setPrototypeOf(fresh, pending.prototype);
    return this.register(fresh);
  }

  private plain(): Record<string, unknown> {
    const { pending } = this;
    if (pending === undefined) return this.register({});
    this.pending = undefined;
    return this.register(pending.object ?? Object.create(pending.prototype)) as Record<string, unknown>;
  }

  newShape(): object {
    const shape = readShape(this);
    this.shapes.push(shape);
    return this.fill(shape);
  }

  private shaped(): object {
    const shape = this.shapes[this.varint()];
    if (shape === undefined) throw new MalformedHeader('a shape is missing');
    return this.fill(shape);
  }

  private fill(shape: ReadShape): object {
    const { keys } = shape;
    this.need(keys.length);
    const make = this.pending === undefined ? makerOf(shape) : undefined;
    if (make !== undefined) return make(this);
    const object = this.plain();
    if (areFree(keys, Object.getPrototypeOf(object) as object | null)) {
      for (let i = 0; i < keys.length; i++) object[keys[i] as string] = this.value();
    } else {
      for (let i = 0; i < keys.length; i++) define(object, keys[i] as string, this.value());
    }
    return object;
  }

  dictionary(): object {
    const length = this.count(2);
    const object = this.plain();
    for (let i = 0; i < length; i++) {
      const key = this.text();
      const value = this.value();
      if (key in object) define(object, key, value);
      else object[key] = value;
    }
    return object;
  }

  view(): ArrayBufferView {
    if (this.buffers === undefined) throw new MalformedHeader('its buffers are missing');
    return this.buffers.view(this.byte(), this.varint());
  }

  longLatin1(): string {
    const bytes = this.textBytes();
    return latin1Slice.call(bytes, 0, bytes.length);
  }

  longUtf16(): string {
    const bytes = this.textBytes();
    if (bytes.length % 2 !== 0) throw new MalformedHeader('a text is out of step');
    return ucs2Slice.call(bytes, 0, bytes.length);
  }

  private textBytes(): Uint8Array {
    if (this.buffers === undefined) throw new MalformedHeader('its buffers are missing');
    return this.buffers.text(this.varint());
  }

  /** Gives back the memory that only texts came from. */
  release(): void {
    const { release } = this.source;
    if (release !== undefined) this.buffers?.release(release);
  }

  buffer(): ArrayBufferLike {
    if (this.buffers === undefined) throw new MalformedHeader('its buffers are missing');
    return this.buffers.whole(this.varint());
  }
}

/** The part that imports modules, loaded when a header needs it. */
export function loadImports(): typeof import('./functions/imports.cjs') {
  return require('./functions/imports.cjs') as typeof import('./functions/imports.cjs');
}

/** Makes an own property also where assignment would find a setter, such as `__proto__`. */
function define(object: object, key: string, value: unknown): void {
  Object.defineProperty(object, key, { value, writable: true, enumerable: true, configurable: true });
}

/** Reads version and flags; leaves the reader behind the prefix. */
export function readPrefix(reader: ByteReader): { flags: number; tables: number } {
  const version = reader.byte();
  if (version !== VERSION) throw new MalformedHeader(`version ${version} is unknown`);
  const flags = reader.byte();
  const tables = reader.uint32();
  if (tables !== 0 && (tables < PREFIX_LENGTH || tables > reader.bytes.length)) {
    throw new MalformedHeader('its tables are missing');
  }
  return { flags, tables };
}

defineReaders({
  [Tag.Undefined]: () => undefined,
  [Tag.Null]: () => null,
  [Tag.False]: () => false,
  [Tag.True]: () => true,
  [Tag.Int]: (reader) => reader.zigzag(),
  [Tag.Double]: (reader) => reader.double(),
  [Tag.Utf16]: (reader) => reader.utf16(),
  [Tag.LongLatin1]: (reader) => reader.longLatin1(),
  [Tag.LongUtf16]: (reader) => reader.longUtf16(),
  [Tag.BigInt]: readBigInt,
  [Tag.NegativeBigInt]: (reader) => -readBigInt(reader),
  [Tag.BackReference]: (reader) => reader.backReference(),
  [Tag.NewShape]: (reader) => reader.newShape(),
  [Tag.Dictionary]: (reader) => reader.dictionary(),
  [Tag.View]: (reader) => reader.adopt(reader.view()),
  [Tag.Buffer]: (reader) => reader.adopt(reader.buffer()),
  [Tag.Array](reader) {
    const length = reader.count();
    const array = reader.adopt(arrayOf<unknown>(length));
    for (let i = 0; i < length; i++) array[i] = reader.value();
    return array;
  },
  [Tag.Doubles](reader) {
    const length = reader.count(8);
    const array = reader.adopt(arrayOf<number>(length));
    for (let i = 0; i < length; i++) array[i] = reader.double();
    return array;
  },
  [Tag.SparseArray](reader) {
    const length = reader.varint();
    if (length > 0xffffffff) throw new MalformedHeader('an array is too long');
    const count = reader.count(2);
    const array: unknown[] = reader.adopt([]);
    array.length = length;
    for (let i = 0; i < count; i++) {
      const index = reader.varint();
      if (index >= length) throw new MalformedHeader('an index is beyond its array');
      array[index] = reader.value();
    }
    return array;
  },
  [Tag.WellKnownSymbol](reader) {
    const code = reader.byte();
    const symbol = wellKnownSymbol(code);
    if (symbol === undefined) throw new Refusal(`holds the shared symbol ${code}, which this runtime lacks`);
    return reader.register(symbol);
  },
  [Tag.RegisteredSymbol]: (reader) => reader.register(Symbol.for(reader.text())),
  [Tag.UniqueSymbol](reader) {
    const id = reader.announce();
    const key = reader.text();
    const description = reader.value();
    if (description !== undefined && typeof description !== 'string') throw new MalformedHeader('a symbol is odd');
    return reader.resolve(id, symbolById(key, description));
  },
  [Tag.Handle](reader) {
    const id = reader.announce();
    return reader.resolve(id, reader.source.refs(reader.varint()));
  },
});

/** V8 makes a hash table of an array that is allocated longer than this. */
const LONGEST_ALLOCATED = 2 ** 25;

function arrayOf<T>(length: number): T[] {
  return length <= LONGEST_ALLOCATED ? new Array<T>(length) : [];
}

function readBigInt(reader: Reader): bigint {
  const bytes = reader.raw(reader.count());
  return bytes.length === 0 ? 0n : BigInt(`0x${Buffer.prototype.hexSlice.call(bytes, 0, bytes.length)}`);
}
