import { Tag } from './format.cjs';
import { MalformedHeader } from './refusal.cjs';

const CHUNK = 12;

/** Reads the primitive encodings with every bound checked. */
export class ByteReader {
  readonly bytes: Buffer;
  position = 0;
  private readonly data: DataView;

  constructor(header: Uint8Array) {
    this.bytes = Buffer.from(header.buffer, header.byteOffset, header.byteLength);
    this.data = new DataView(header.buffer, header.byteOffset, header.byteLength);
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
    const value = this.data.getFloat64(this.position, true);
    this.position += 8;
    return value;
  }

  uint32(): number {
    this.need(4);
    const value = this.data.getUint32(this.position, true);
    this.position += 4;
    return value;
  }

  /** A view of the next bytes. */
  raw(length: number): Buffer {
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
    return length <= CHUNK ? this.shortLatin1(start, length) : this.bytes.latin1Slice(start, this.position);
  }

  /** A native call costs more than a dozen characters do. */
  private shortLatin1(start: number, length: number): string {
    const b = this.bytes as Uint8Array as { [index: number]: number };
    const code = String.fromCharCode;
    const i = start;
    switch (length) {
      case 0:
        return '';
      case 1:
        return code(b[i]!);
      case 2:
        return code(b[i]!, b[i + 1]!);
      case 3:
        return code(b[i]!, b[i + 1]!, b[i + 2]!);
      case 4:
        return code(b[i]!, b[i + 1]!, b[i + 2]!, b[i + 3]!);
      case 5:
        return code(b[i]!, b[i + 1]!, b[i + 2]!, b[i + 3]!, b[i + 4]!);
      case 6:
        return code(b[i]!, b[i + 1]!, b[i + 2]!, b[i + 3]!, b[i + 4]!, b[i + 5]!);
      case 7:
        return code(b[i]!, b[i + 1]!, b[i + 2]!, b[i + 3]!, b[i + 4]!, b[i + 5]!, b[i + 6]!);
      case 8:
        return code(b[i]!, b[i + 1]!, b[i + 2]!, b[i + 3]!, b[i + 4]!, b[i + 5]!, b[i + 6]!, b[i + 7]!);
      default:
        return this.shortLatin1(start, 8) + this.shortLatin1(start + 8, length - 8);
    }
  }

  utf16(): string {
    const length = this.count(2) * 2;
    const start = this.position;
    this.position += length;
    return this.bytes.ucs2Slice(start, this.position);
  }
}
