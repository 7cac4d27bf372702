import { Tag } from './format.cjs';
import { MalformedHeader } from './refusal.cjs';

/**
 * A call into the runtime costs ten times as much as a part of a string: short strings are parts of a larger one. From 13
 * units on such a part keeps the whole alive, which is why the whole is not large either.
 */
const WINDOW = 1024;
const SHORT = 64;
export const { latin1Slice, ucs2Slice } = Buffer.prototype;

/** Reads the primitive encodings with every bound checked. */
export class ByteReader {
  readonly bytes: Uint8Array;
  position = 0;
  private data: DataView | undefined;
  /** The bytes from {@link windowStart} on as text, for the short strings among them. */
  private window = '';
  private windowStart = 0;

  constructor(header: Uint8Array) {
    this.bytes = header;
  }

  private numbers(): DataView {
    const { bytes } = this;
    this.data ??= new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    return this.data;
  }

  /** Throws unless `length` more bytes are there. */
  need(length: number): void {
    if (!(length <= this.bytes.length - this.position)) throw new MalformedHeader('it ends early');
  }

  byte(): number {
    if (this.position >= this.bytes.length) throw new MalformedHeader('it ends early');
    return this.bytes[this.position++] as number;
  }

  varint(): number {
    const value = this.byte();
    return value < 0x80 ? value : this.longVarint(value & 0x7f);
  }

  private longVarint(low: number): number {
    let value = low;
    let scale = 0x80;
    for (;;) {
      const next = this.byte();
      value += (next & 0x7f) * scale;
      if (next < 0x80) break;
      scale *= 0x80;
      if (scale > 2 ** 49) throw new MalformedHeader('an integer is too long');
    }
    if (value > Number.MAX_SAFE_INTEGER) throw new MalformedHeader('an integer is too large');
    return value;
  }

  /** A count of things of at least `size` bytes each: never more than the bytes left could hold. */
  count(size = 1): number {
    const count = this.varint();
    this.need(count * size);
    return count;
  }

  zigzag(): number {
    const value = this.varint();
    if (value > 0xffffffff) throw new MalformedHeader('an integer is too large');
    return (value >>> 1) ^ -(value & 1);
  }

  double(): number {
    this.need(8);
    const value = (this.data ?? this.numbers()).getFloat64(this.position, true);
    this.position += 8;
    return value;
  }

  uint32(): number {
    this.need(4);
    const value = this.numbers().getUint32(this.position, true);
    this.position += 4;
    return value;
  }

  /** A view of the next bytes. */
  raw(length: number): Uint8Array {
    this.need(length);
    const bytes = this.bytes.subarray(this.position, this.position + length);
    this.position += length;
    return bytes;
  }

  /** A tagged string. */
  text(): string {
    const tag = this.byte();
    if (tag === Tag.Latin1) return this.latin1();
    if (tag === Tag.Utf16) return this.utf16();
    throw new MalformedHeader('a string is missing');
  }

  latin1(): string {
    const length = this.count();
    const start = this.position;
    this.position += length;
    if (length >= SHORT) return latin1Slice.call(this.bytes, start, this.position);
    let from = start - this.windowStart;
    if (from < 0 || from + length > this.window.length) {
      this.windowStart = start;
      this.window = latin1Slice.call(this.bytes, start, Math.min(start + WINDOW, this.bytes.length));
      from = 0;
    }
    return this.window.slice(from, from + length);
  }

  utf16(): string {
    const length = this.count(2) * 2;
    const start = this.position;
    this.position += length;
    return ucs2Slice.call(this.bytes, start, this.position);
  }
}
