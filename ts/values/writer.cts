/**
 * The value writer: walks a value once and appends its records. One table of identities covers objects, symbols,
 * functions and classes.
 */
import { types } from 'node:util';
import { isIndex, isOrdinaryArray } from './elements.cjs';
import { FLAG_CODE, PREFIX_LENGTH, Tag, VERSION, WELL_KNOWN_SYMBOLS, wellKnownSymbol } from './format.cjs';
import type { FunctionWriter } from './functions/function-writer.cjs';
import { Identities } from './identities.cjs';
import { symbolId } from './identity.cjs';
import { writeObject } from './object-writer.cjs';
import { Path, Step } from './path.cjs';
import type { Finding } from './refusal.cjs';
import { isStackOverflow, Refusal } from './refusal.cjs';
import { ScalarWriter } from './scalar-writer.cjs';
import { type Shape, ShapeTable } from './shapes.cjs';

export class Writer extends ScalarWriter {
  readonly path = new Path('$');
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
  private readonly ids = new Identities();
  private readonly shapes = new ShapeTable();
  /** Values read from objects that are not written yet. */
  private readonly stack: unknown[] = [];
  private top = 0;
  /** The likely shape of the object that is written next, or of the elements of the list that is. */
  private hint: Shape | undefined;
  /** The shape of what was written last, in the same sense. */
  private last: Shape | undefined;
  private functionWriter: FunctionWriter | undefined;

  /** Starts a message. */
  begin(root: string): void {
    this.busy = true;
    this.path.root = root;
    this.shapes.begin();
    this.position = 0;
    this.reserve(PREFIX_LENGTH);
    const { bytes } = this;
    bytes[0] = VERSION;
    for (let i = 1; i < PREFIX_LENGTH; i++) bytes[i] = 0;
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
    this.ids.clear();
    this.forgetModels();
    this.endScalars();
    if (this.incomplete.size > 0) this.incomplete.clear();
    if (this.plainPrototypes.size > 0) this.plainPrototypes.clear();
    this.refs.length = 0;
    this.seals.length = 0;
    this.stack.length = 0;
    this.top = 0;
    this.flags = 0;
    this.hint = undefined;
    this.last = undefined;
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
        this.text(value);
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

  /** Has everything looked at again. */
  forgetModels(): void {
    this.shapes.forget();
  }

  /** Writes a value that is likely to be like the one before. */
  likeLast(value: unknown): void {
    this.hint = this.last;
    this.value(value);
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
    const id = this.ids.find(value);
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
    const id = this.incomplete.size > 0 ? this.ids.find(value as object) : undefined;
    if (id === undefined) {
      this.value(value);
    } else {
      this.byte(Tag.BackReference);
      this.varint(id);
    }
  }

  /** Gives the next identity to `value`; the reader counts the same way. */
  register(value: object | symbol): number {
    return this.ids.add(value);
  }

  /** The identity that `value` has in this message. */
  identity(value: object | symbol): number | undefined {
    return this.ids.find(value);
  }

  private object(value: object): void {
    const { hint } = this;
    if (hint?.isOf(value)) {
      this.shaped(value as Record<string, unknown>, hint);
      return;
    }
    if (!types.isProxy(value)) {
      const prototype = Object.getPrototypeOf(value) as object | null;
      if (prototype === Object.prototype) {
        this.plain(value as Record<string, unknown>);
        return;
      }
      if (prototype === Array.prototype && Array.isArray(value) && isOrdinaryArray(value)) {
        this.hint = hint;
        if (this.enter(value)) this.elements(value);
        return;
      }
    }
    this.other(value);
  }

  /** An object that is not of the commonest kinds. */
  private other(value: object): void {
    this.last = undefined;
    if (this.backReference(value)) return;
    writeObject(this, value);
    this.last = undefined;
  }

  /** Gives an object its identity; writes a reference, and returns false, when it has one. */
  private enter(value: object): boolean {
    return this.ids.enter(value) || !this.backReference(value);
  }

  /** An object with Object.prototype; whatever is unusual about it takes the long way. */
  private plain(value: Record<string, unknown>): void {
    const keys = Object.getOwnPropertyNames(value);
    const shape = this.shapes.find(keys);
    if (shape?.isOf(value)) {
      this.shaped(value, shape);
      return;
    }
    const base = this.examine(value, keys);
    if (base < 0) {
      this.other(value);
      return;
    }
    if (shape !== undefined) this.shapes.learn(shape, value);
    if (this.enter(value)) {
      if (shape === undefined) this.dictionary(value, keys, base);
      else this.record(value, shape, base);
    }
    this.top = base;
    this.last = shape;
  }

  /** Like {@link Writer.take}, of an object whose properties may be unusual: then nothing is taken. */
  private examine(value: object, keys: readonly string[]): number {
    const { stack, top } = this;
    const { length } = keys;
    if (length === 0 || !Object.isExtensible(value) || Object.getOwnPropertySymbols(value).length > 0) return -1;
    for (let i = 0; i < length; i++) {
      const property = Object.getOwnPropertyDescriptor(value, keys[i] as string) as PropertyDescriptor;
      if (!property.writable || !property.enumerable || !property.configurable) return -1;
      const held: unknown = property.value;
      if (typeof held === 'function') return -1;
      stack[top + i] = held;
    }
    this.top = top + length;
    return top;
  }

  /**
   * Reads the properties of an object onto the stack, before anything that runs may change them; returns where they
   * begin. Where a function is among them nothing is taken: namespaces of builtins and packages hold functions, no data
   * object needs the look-up.
   */
  private take(value: Record<string, unknown>, keys: readonly string[]): number {
    const { stack, top } = this;
    const { length } = keys;
    for (let i = 0; i < length; i++) {
      const held = value[keys[i] as string];
      if (typeof held === 'function') return -1;
      stack[top + i] = held;
    }
    this.top = top + length;
    return top;
  }

  /** An object that has the keys of a shape, all of them ordinary. */
  private shaped(value: Record<string, unknown>, shape: Shape): void {
    const base = this.take(value, shape.keys);
    if (base < 0) {
      this.other(value);
      return;
    }
    if (this.enter(value)) this.record(value, shape, base);
    this.top = base;
    this.last = shape;
  }

  /** The record of an object whose properties are all ordinary: own enumerable strings, in order. */
  ordinary(value: Record<string, unknown>, keys: readonly string[]): void {
    const base = this.top;
    for (let i = 0; i < keys.length; i++) this.stack[base + i] = value[keys[i] as string];
    this.top = base + keys.length;
    this.register(value);
    const shape = this.shapes.find(keys);
    if (shape === undefined) this.dictionary(value, keys, base);
    else this.record(value, shape, base);
    this.top = base;
  }

  private record(value: object, shape: Shape, base: number): void {
    const { keys, hints } = shape;
    const { length } = keys;
    const { path } = this;
    path.depth++;
    if (this.shapes.isDefined(shape)) {
      this.byte(Tag.Shaped);
      this.varint(shape.id);
    } else {
      this.byte(Tag.NewShape);
      this.varint(length);
      for (let i = 0; i < length; i++) this.string(keys[i] as string, Tag.Latin1);
    }
    for (let i = 0; i < length; i++) {
      const held = this.stack[base + i];
      if (this.scalar(held)) continue;
      path.at(Step.Property, keys[i]);
      if (typeof held === 'function') this.holder = value;
      this.hint = hints[i];
      this.value(held);
      if (typeof held === 'object' && held !== null) hints[i] = this.last;
    }
    path.depth--;
  }

  private dictionary(value: object, keys: readonly string[], base: number): void {
    const { length } = keys;
    const { path } = this;
    path.depth++;
    this.byte(Tag.Dictionary);
    this.varint(length);
    this.hint = undefined;
    for (let i = 0; i < length; i++) {
      const key = keys[i] as string;
      this.string(key, Tag.Latin1);
      path.at(Step.Property, key);
      const held = this.stack[base + i];
      if (typeof held === 'function') this.holder = value;
      this.value(held);
      this.hint = this.last;
    }
    path.depth--;
  }

  /** The record of an array; takes the identity. */
  array(value: readonly unknown[]): void {
    this.hint = undefined;
    this.register(value);
    this.elements(value);
  }

  /** The record of the elements of an array that has its identity. */
  private elements(value: readonly unknown[]): void {
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
          this.holes(value);
          return;
        }
      }
    }
    if (numbers && !integers) {
      this.doubles(value as readonly number[]);
      return;
    }
    this.byte(Tag.Array);
    this.varint(length);
    if (numbers) {
      for (let i = 0; i < length; i++) this.number(value[i] as number);
      return;
    }
    const { path } = this;
    path.depth++;
    let shape = this.hint;
    for (let i = 0; i < length; i++) {
      const element = value[i];
      if (this.scalar(element)) continue;
      path.at(Step.Index, undefined, i);
      if (typeof element === 'function') this.holder = value;
      this.hint = shape;
      this.value(element);
      if (typeof element === 'object' && element !== null) shape = this.last;
    }
    this.last = shape;
    path.depth--;
  }

  private doubles(value: readonly number[]): void {
    const { length } = value;
    this.byte(Tag.Doubles);
    this.varint(length);
    this.reserve(length * 8);
    for (let i = 0; i < length; i++) this.double(value[i] as number);
  }

  /** The record of an array with holes; what is left out of it is a hole as well. */
  sparse(value: readonly unknown[], leftOut: ReadonlySet<string | symbol>): void {
    this.register(value);
    this.holes(value, leftOut);
  }

  private holes(value: readonly unknown[], leftOut?: ReadonlySet<string | symbol>): void {
    this.hint = undefined;
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
