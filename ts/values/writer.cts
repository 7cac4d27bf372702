/**
 * The value writer: walks a value once and appends its records. One table of identities covers objects, symbols,
 * functions and classes.
 */
import { types } from 'node:util';
import { BufferTable } from './buffer-table.cjs';
import { ByteWriter } from './byte-writer.cjs';
import { isIndex, isOrdinaryArray } from './elements.cjs';
import { FLAG_CODE, PREFIX_LENGTH, SMALL_INT, Tag, VERSION, WELL_KNOWN_SYMBOLS, wellKnownSymbol } from './format.cjs';
import type { FunctionWriter } from './functions/function-writer.cjs';
import { symbolId } from './identity.cjs';
import { writeObject } from './object-writer.cjs';
import { Path, Step } from './path.cjs';
import type { Finding } from './refusal.cjs';
import { isStackOverflow, Refusal } from './refusal.cjs';
import { ShapeTable } from './shapes.cjs';

export class Writer extends ByteWriter {
  readonly path = new Path('$');
  readonly buffers = new BufferTable();
  readonly refs: object[] = [];
  readonly seals: object[] = [];
  flags = 0;
  /** Given when every refusal is wanted, not the first alone. */
  findings: Finding[] | undefined;
  /** The object whose property is written next, when that is a function: its home, and a sign of shared scope. */
  holder: object | undefined;
  /** Whether a call is using this writer. */
  busy = false;
  /** Prototypes whose instances were found to be plain objects of the program's classes. */
  readonly plainPrototypes = new Set<object>();
  /** Identities whose objects the reader cannot have made yet. */
  readonly incomplete = new Set<number>();
  private readonly ids = new Map<object | symbol, number>();
  private readonly shapes = new ShapeTable();
  /** Values read from objects that are not written yet. */
  private readonly stack: unknown[] = [];
  private top = 0;
  private functionWriter: FunctionWriter | undefined;

  /** Starts a message. */
  begin(root: string): void {
    this.busy = true;
    this.path.root = root;
    this.shapes.begin();
    this.position = 0;
    this.reserve(PREFIX_LENGTH);
    this.bytes.fill(0, 0, PREFIX_LENGTH);
    this.bytes[0] = VERSION;
    this.position = PREFIX_LENGTH;
  }

  /** Writes what is owed at the end of a message; returns the out-of-band buffers. */
  finish(): ArrayBufferView[] {
    this.functionWriter?.flush();
    const code = (this.flags & FLAG_CODE) !== 0;
    if (this.buffers.isEmpty && !code) return [];
    const start = this.position;
    if (code) this.functionWriter?.writeModules();
    const outOfBand = this.buffers.write(this);
    if (code) this.functionWriter?.writeCode();
    this.bytes[1] = this.flags;
    this.patchUint32(2, start);
    return outOfBand;
  }

  /** Drops everything that belonged to the message. */
  end(): void {
    this.functionWriter?.end();
    this.path.clear();
    this.buffers.clear();
    this.ids.clear();
    this.incomplete.clear();
    this.plainPrototypes.clear();
    this.refs.length = 0;
    this.seals.length = 0;
    this.stack.length = 0;
    this.top = 0;
    this.flags = 0;
    this.holder = undefined;
    this.functionWriter = undefined;
    this.findings = undefined;
    this.shrink();
    this.busy = false;
  }

  /** The part that writes functions, classes and whatever is found by name. */
  get functions(): FunctionWriter {
    if (this.functionWriter === undefined) {
      // Loaded at the first function: plain data pays nothing for the parser behind it.
      const loaded = require('./functions/function-writer.cjs') as typeof import('./functions/function-writer.cjs');
      this.functionWriter = new loaded.FunctionWriter(this);
    }
    return this.functionWriter;
  }

  /** Takes another function writer than its own. */
  useFunctions(functionWriter: FunctionWriter): void {
    this.functionWriter = functionWriter;
  }

  /** Writes what the functions met so far owe, so that they are complete when the reader gets here. */
  flushFunctions(): void {
    this.functionWriter?.flush();
  }

  /** Writes any value. */
  value(value: unknown): void {
    switch (typeof value) {
      case 'string':
        this.string(value, Tag.Latin1);
        return;
      case 'number':
        this.number(value);
        return;
      case 'boolean':
        this.byte(value ? Tag.True : Tag.False);
        return;
      case 'undefined':
        this.byte(Tag.Undefined);
        return;
      case 'bigint':
        this.bigint(value);
        return;
      case 'object':
        if (value === null) this.byte(Tag.Null);
        else if (this.findings === undefined) this.object(value);
        else this.attempt(() => this.reference(value));
        return;
      default:
        if (this.findings === undefined) this.callableOrSymbol(value as symbol | CallableFunction);
        else this.attempt(() => this.reference(value as symbol));
    }
  }

  private reference(value: object | symbol): void {
    if (typeof value === 'object') this.object(value);
    else this.callableOrSymbol(value as symbol | CallableFunction);
  }

  /** Runs a step that may refuse; where every refusal is wanted, takes it down and goes on. */
  attempt(write: () => void): void {
    if (this.findings === undefined) {
      write();
      return;
    }
    const { depth } = this.path;
    try {
      write();
    } catch (error) {
      if (!(error instanceof Refusal) && !isStackOverflow(error)) throw error;
      const { reason, hint } = error instanceof Refusal ? error : { reason: 'is nested too deeply', hint: '' };
      this.findings.push({ path: this.path.toString(), reason, hint });
      this.path.depth = depth;
      this.byte(Tag.Undefined);
    }
  }

  number(value: number): void {
    // -0 is an integer to every operator but Object.is.
    if ((value | 0) === value && (value !== 0 || 1 / value > 0)) {
      if (value >= 0 && value < 128) {
        this.byte(SMALL_INT | value);
      } else {
        this.byte(Tag.Int);
        this.zigzag(value);
      }
    } else {
      this.byte(Tag.Double);
      this.double(value);
    }
  }

  private bigint(value: bigint): void {
    const negative = value < 0n;
    let hex = (negative ? -value : value).toString(16);
    if (hex.length % 2 === 1) hex = `0${hex}`;
    this.byte(negative ? Tag.NegativeBigInt : Tag.BigInt);
    this.varint(hex.length / 2);
    this.raw(Buffer.from(hex, 'hex'));
  }

  private callableOrSymbol(value: symbol | CallableFunction): void {
    if (this.backReference(value)) {
      this.holder = undefined;
      return;
    }
    if (typeof value === 'symbol') {
      this.symbol(value);
      return;
    }
    const { holder } = this;
    this.holder = undefined;
    this.functions.write(value, holder);
  }

  private symbol(value: symbol): void {
    const key = Symbol.keyFor(value);
    if (key !== undefined) {
      this.register(value);
      this.string(key, this.tagged(Tag.RegisteredSymbol, Tag.Latin1));
      return;
    }
    const known = WELL_KNOWN_SYMBOLS.findIndex((_, code) => wellKnownSymbol(code) === value);
    this.register(value);
    if (known >= 0) {
      this.byte(Tag.WellKnownSymbol);
      this.byte(known);
    } else {
      this.byte(Tag.UniqueSymbol);
      this.string(symbolId(value), Tag.Latin1);
      this.value(value.description);
    }
  }

  /** Writes `tag` and gives back `inner`, for records that start with a tagged string. */
  private tagged(tag: Tag, inner: Tag): Tag {
    this.byte(tag);
    return inner;
  }

  /** Writes a reference to what the message holds already. */
  backReference(value: object | symbol): boolean {
    const id = this.ids.get(value);
    if (id === undefined) return false;
    if (this.incomplete.size > 0 && this.incomplete.has(id)) {
      throw new Refusal('is part of a cycle through what it is made from', 'Break the cycle in the serializer');
    }
    this.byte(Tag.BackReference);
    this.varint(id);
    return true;
  }

  /** Writes a value into a place that the reader can fill in later. */
  slot(value: unknown): void {
    const id = this.incomplete.size > 0 ? this.ids.get(value as object) : undefined;
    if (id === undefined) {
      this.value(value);
    } else {
      this.byte(Tag.BackReference);
      this.varint(id);
    }
  }

  /** Gives the next identity to `value`; the reader counts the same way. */
  register(value: object | symbol): number {
    const id = this.ids.size;
    this.ids.set(value, id);
    return id;
  }

  /** The identity that `value` has in this message. */
  identity(value: object | symbol): number | undefined {
    return this.ids.get(value);
  }

  private object(value: object): void {
    if (this.backReference(value)) return;
    if (!types.isProxy(value)) {
      const prototype = Object.getPrototypeOf(value) as object | null;
      if (prototype === Object.prototype) {
        this.plain(value as Record<string, unknown>);
        return;
      }
      if (prototype === Array.prototype && Array.isArray(value) && isOrdinaryArray(value)) {
        this.array(value);
        return;
      }
    }
    writeObject(this, value);
  }

  /** An object with Object.prototype; whatever is unusual about it takes the long way. */
  private plain(value: Record<string, unknown>): void {
    const keys = Object.getOwnPropertyNames(value);
    const length = keys.length;
    const base = this.top;
    const stack = this.stack;
    let calls = length === 0;
    let simple = Object.isExtensible(value) && Object.getOwnPropertySymbols(value).length === 0;
    for (let i = 0; simple && i < length; i++) {
      const property = Object.getOwnPropertyDescriptor(value, keys[i] as string) as PropertyDescriptor;
      simple = property.writable === true && property.enumerable === true && property.configurable === true;
      const held: unknown = property.value;
      if (typeof held === 'function') calls = true;
      stack[base + i] = held;
    }
    // Namespaces of builtins and packages hold functions; no data object needs the look-up.
    if (!simple || calls) {
      writeObject(this, value);
      return;
    }
    this.top = base + length;
    this.register(value);
    this.properties(value, keys, base);
    this.top = base;
  }

  /** The record of an object whose properties are all ordinary: own enumerable strings, in order. */
  ordinary(value: Record<string, unknown>, keys: readonly string[]): void {
    const base = this.top;
    for (let i = 0; i < keys.length; i++) this.stack[base + i] = value[keys[i] as string];
    this.top = base + keys.length;
    this.register(value);
    this.properties(value, keys, base);
    this.top = base;
  }

  private properties(value: object, keys: readonly string[], base: number): void {
    const length = keys.length;
    const shape = this.shapes.find(keys);
    const path = this.path;
    path.depth++;
    if (shape === undefined) {
      this.byte(Tag.Dictionary);
      this.varint(length);
    } else if (this.shapes.isDefined(shape)) {
      this.byte(Tag.Shaped);
      this.varint(shape.id);
    } else {
      this.byte(Tag.NewShape);
      this.varint(length);
      for (let i = 0; i < length; i++) this.string(keys[i] as string, Tag.Latin1);
    }
    for (let i = 0; i < length; i++) {
      const key = keys[i] as string;
      if (shape === undefined) this.string(key, Tag.Latin1);
      path.at(Step.Property, key);
      const held = this.stack[base + i];
      if (typeof held === 'function') this.holder = value;
      this.value(held);
    }
    path.depth--;
  }

  /** The record of an array's elements. */
  array(value: readonly unknown[]): void {
    const length = value.length;
    let numbers = length > 0;
    let integers = true;
    for (let i = 0; i < length; i++) {
      const element = value[i];
      if (typeof element === 'number') {
        if ((element | 0) !== element) integers = false;
      } else {
        numbers = false;
        if (element === undefined && !Object.hasOwn(value, i)) {
          this.sparse(value);
          return;
        }
      }
    }
    this.register(value);
    if (numbers && !integers) {
      this.byte(Tag.Doubles);
      this.varint(length);
      this.reserve(length * 8);
      for (let i = 0; i < length; i++) this.double(value[i] as number);
      return;
    }
    this.byte(Tag.Array);
    this.varint(length);
    if (numbers) {
      for (let i = 0; i < length; i++) this.number(value[i] as number);
      return;
    }
    const path = this.path;
    path.depth++;
    for (let i = 0; i < length; i++) {
      path.at(Step.Index, undefined, i);
      const element = value[i];
      if (typeof element === 'function') this.holder = value;
      this.value(element);
    }
    path.depth--;
  }

  /** The record of an array with holes; what is left out of it is a hole as well. */
  sparse(value: readonly unknown[], leftOut?: ReadonlySet<string | symbol>): void {
    this.register(value);
    const indices = Object.keys(value).filter((key) => isIndex(key) && leftOut?.has(key) !== true);
    this.byte(Tag.SparseArray);
    this.varint(value.length);
    this.varint(indices.length);
    this.path.depth++;
    for (const key of indices) {
      const index = Number(key);
      this.varint(index);
      this.path.at(Step.Index, undefined, index);
      this.value(value[index]);
    }
    this.path.depth--;
  }

  /** An ObjectRef or actor handle. */
  handle(value: object): void {
    this.register(value);
    this.byte(Tag.Handle);
    this.varint(this.refs.push(value) - 1);
  }
}
