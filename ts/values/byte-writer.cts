/** A growing scratch area with the primitive encodings. */

const INITIAL_LENGTH = 64 * 1024;
/** Scratch above this size is given back after use. */
const KEPT_LENGTH = 16 * 1024 * 1024;
/** Shorter strings are copied by a loop, longer ones natively: the border measured on Node 20. */
const LOOP_LENGTH = 40;
/** Whether some unit of a text does not fit a byte. */
export const BEYOND_LATIN1 = /[^\u0000-\u00ff]/;

/** Writes bytes; grows as needed. The backing memory is reused from message to message. */
export class ByteWriter {
  bytes: Buffer = Buffer.from(new ArrayBuffer(INITIAL_LENGTH));
  position = 0;
  private view = new DataView(this.bytes.buffer);

  /** Makes room for `length` more bytes. */
  reserve(length: number): void {
    if (this.position + length > this.bytes.length) this.grow(this.position + length);
  }

  private grow(needed: number): void {
    const bytes = Buffer.from(new ArrayBuffer(Math.max(needed, this.bytes.length * 2)));
    bytes.set(this.bytes.subarray(0, this.position));
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer);
  }

  /** Forgets an area that one big value has made. */
  shrink(): void {
    if (this.bytes.length <= KEPT_LENGTH) return;
    this.bytes = Buffer.from(new ArrayBuffer(INITIAL_LENGTH));
    this.view = new DataView(this.bytes.buffer);
  }

  byte(value: number): void {
    if (this.position >= this.bytes.length) this.grow(this.position + 1);
    this.bytes[this.position++] = value;
  }

  /** An unsigned integer below 2^53, seven bits a byte, low bits first. */
  varint(value: number): void {
    if (value < 0x80) this.byte(value);
    else this.longVarint(value);
  }

  private longVarint(value: number): void {
    this.reserve(8);
    const bytes = this.bytes;
    let { position } = this;
    while (value > 0x7fffffff) {
      bytes[position++] = (value % 128) | 0x80;
      value = Math.floor(value / 128);
    }
    while (value >= 0x80) {
      bytes[position++] = (value & 0x7f) | 0x80;
      value >>>= 7;
    }
    bytes[position++] = value;
    this.position = position;
  }

  /** A 32-bit integer, zigzag. */
  zigzag(value: number): void {
    this.varint(((value << 1) ^ (value >> 31)) >>> 0);
  }

  double(value: number): void {
    this.reserve(8);
    this.view.setFloat64(this.position, value, true);
    this.position += 8;
  }

  /** Overwrites four bytes written before. */
  patchUint32(position: number, value: number): void {
    this.view.setUint32(position, value, true);
  }

  raw(bytes: Uint8Array): void {
    this.reserve(bytes.length);
    // Not by `set`, which on Node 26.10 refuses to read from immutable buffers; nor by way of `Buffer.from`, which would
    // ask the memory for its length, and that may have a property of the name.
    Buffer.prototype.copy.call(bytes, this.bytes, this.position);
    this.position += bytes.length;
  }

  /** `tag` when every unit fits a byte, `tag + 1` else; the length in units; the units. Lone surrogates survive. */
  string(text: string, tag: number): void {
    const length = text.length;
    this.reserve(9 + length * 2);
    const start = this.position;
    this.bytes[this.position++] = tag;
    this.varint(length);
    if (length < LOOP_LENGTH) {
      const bytes = this.bytes;
      let position = this.position;
      for (let i = 0; i < length; i++) {
        const unit = text.charCodeAt(i);
        if (unit > 0xff) {
          bytes[start] = tag + 1;
          this.position += bytes.ucs2Write(text, this.position);
          return;
        }
        bytes[position++] = unit;
      }
      this.position = position;
    } else if (BEYOND_LATIN1.test(text)) {
      this.bytes[start] = tag + 1;
      this.position += this.bytes.ucs2Write(text, this.position);
    } else {
      this.position += this.bytes.latin1Write(text, this.position);
    }
  }
}

declare global {
  interface Buffer {
    /** Present on every Node, missing in the published types. */
    latin1Write(text: string, offset?: number, length?: number): number;
    ucs2Write(text: string, offset?: number, length?: number): number;
    latin1Slice(this: Uint8Array, start: number, end: number): string;
    ucs2Slice(this: Uint8Array, start: number, end: number): string;
    hexSlice(this: Uint8Array, start: number, end: number): string;
  }
}
