/**
 * The codec's shortest messages, without its machinery: primitives, and arrays of them, straight into bytes that the
 * caller has. Everything else takes the {@link encode} way; the bytes are the same.
 */
import { PREFIX_LENGTH, SMALL_INT, Tag, VERSION } from './format.cjs';

/** Longest string that is copied unit by unit. */
const LONGEST = 40;

/** What {@link readPlain} gives for a message that is none of these. */
export const NOT_PLAIN = Symbol('not plain');

// As constants, which cost less than an enum's properties.
const { Undefined, Null, False, True, Int, Double, Latin1, Array: ARRAY } = Tag;

/** Reads and writes messages in one area of bytes. */
export class PlainCodec {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Writes a message from the start of the area on; returns its length, or -1 for a value of another kind. */
  write(value: unknown): number {
    return this.#value(this.#prefix(), value);
  }

  /** Like {@link write}, for an array. */
  writeArray(values: readonly unknown[]): number {
    const bytes = this.#bytes;
    const { length } = values;
    if (length > 16) return -1;
    let at = this.#prefix();
    bytes[at++] = ARRAY;
    bytes[at++] = length;
    for (let index = 0; index < length; index++) {
      at = this.#value(at, values[index]);
      if (at < 0) return -1;
    }
    return at;
  }

  #prefix(): number {
    const bytes = this.#bytes;
    bytes[0] = VERSION;
    bytes[1] = bytes[2] = bytes[3] = bytes[4] = bytes[5] = 0;
    return PREFIX_LENGTH;
  }

  #value(start: number, value: unknown): number {
    const bytes = this.#bytes;
    let at = start;
    switch (typeof value) {
      case 'number':
        if ((value | 0) === value && value >= 0 && value < SMALL_INT && !Object.is(value, -0)) {
          bytes[at] = SMALL_INT | value;
          return at + 1;
        }
        if ((value | 0) === value && !Object.is(value, -0)) {
          bytes[at++] = Int;
          let rest = ((value << 1) ^ (value >> 31)) >>> 0;
          while (rest >= 0x80) {
            bytes[at++] = (rest & 0x7f) | 0x80;
            rest >>>= 7;
          }
          bytes[at] = rest;
          return at + 1;
        }
        // Which bits a NaN has, the other way knows.
        if (Number.isNaN(value)) return -1;
        bytes[at] = Double;
        this.#view.setFloat64(at + 1, value, true);
        return at + 9;
      case 'string': {
        const { length } = value;
        if (length > LONGEST) return -1;
        bytes[at++] = Latin1;
        bytes[at++] = length;
        for (let index = 0; index < length; index++) {
          const unit = value.charCodeAt(index);
          if (unit > 0xff) return -1;
          bytes[at++] = unit;
        }
        return at;
      }
      case 'undefined':
        bytes[at] = Undefined;
        return at + 1;
      case 'boolean':
        bytes[at] = value ? True : False;
        return at + 1;
      default:
        if (value !== null) return -1;
        bytes[at] = Null;
        return at + 1;
    }
  }

  /** The value of the message in a part of the area, when it is a primitive. */
  read(start: number, end: number): unknown {
    if (!this.#isPlain(start, end)) return NOT_PLAIN;
    const value = this.#primitive(start + PREFIX_LENGTH, end);
    return this.#at === end ? value : NOT_PLAIN;
  }

  /** Like {@link read}, for an array of primitives. */
  readArray(start: number, end: number): unknown[] | typeof NOT_PLAIN {
    const bytes = this.#bytes;
    let at = start + PREFIX_LENGTH;
    if (!this.#isPlain(start, end) || at + 2 > end || bytes[at] !== ARRAY) return NOT_PLAIN;
    const length = bytes[at + 1] as number;
    if (length > 16) return NOT_PLAIN;
    at += 2;
    const values: unknown[] = [];
    for (let index = 0; index < length; index++) {
      const value = this.#primitive(at, end);
      if (value === NOT_PLAIN) return NOT_PLAIN;
      values.push(value);
      at = this.#at;
    }
    return at === end ? values : NOT_PLAIN;
  }

  #isPlain(start: number, end: number): boolean {
    const bytes = this.#bytes;
    return (
      start + PREFIX_LENGTH < end &&
      end <= bytes.length &&
      bytes[start] === VERSION &&
      ((bytes[start + 1] as number) |
        (bytes[start + 2] as number) |
        (bytes[start + 3] as number) |
        (bytes[start + 4] as number) |
        (bytes[start + 5] as number)) ===
        0
    );
  }

  /** Where the last primitive that was read ends. */
  #at = 0;

  #primitive(start: number, end: number): unknown {
    const bytes = this.#bytes;
    if (start >= end) return NOT_PLAIN;
    const tag = bytes[start] as number;
    this.#at = start + 1;
    if (tag >= SMALL_INT) return tag & 0x7f;
    switch (tag) {
      case Undefined:
        return undefined;
      case Null:
        return null;
      case False:
        return false;
      case True:
        return true;
      case Double:
        this.#at = start + 9;
        return this.#at <= end ? this.#view.getFloat64(start + 1, true) : NOT_PLAIN;
      case Int: {
        let at = start + 1;
        let value = 0;
        for (let shift = 0; shift < 35; shift += 7) {
          if (at >= end) return NOT_PLAIN;
          const byte = bytes[at++] as number;
          value += (byte & 0x7f) * 2 ** shift;
          if (byte < 0x80) {
            this.#at = at;
            return value > 0xffffffff ? NOT_PLAIN : (value >>> 1) ^ -(value & 1);
          }
        }
        return NOT_PLAIN;
      }
      case Latin1: {
        const length = bytes[start + 1] as number;
        const first = start + 2;
        if (length > LONGEST || first + length > end) return NOT_PLAIN;
        let text = '';
        for (let at = first; at < first + length; at++) text += String.fromCharCode(bytes[at] as number);
        this.#at = first + length;
        return text;
      }
      default:
        return NOT_PLAIN;
    }
  }
}
