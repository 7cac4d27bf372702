/** Writes what is neither an object nor a function: numbers and strings, and the long ones of those out of band. */
import { BufferTable } from './buffer-table.cjs';
import { ByteWriter } from './byte-writer.cjs';
import { LONG_TEXT, SMALL_INT, Tag } from './format.cjs';
import { LongTexts } from './long-texts.cjs';

export class ScalarWriter extends ByteWriter {
  readonly buffers = new BufferTable();
  private readonly longTexts = new LongTexts();

  /** Writes a string or a number; says whether it was one. They need no place in the path: nothing about them is refused. */
  scalar(value: unknown): boolean {
    if (typeof value === 'string') this.text(value);
    else if (typeof value === 'number') this.number(value);
    else return false;
    return true;
  }

  /** A string that is a value: a long one goes out of band. */
  text(value: string): void {
    if (value.length < LONG_TEXT / 2) this.string(value, Tag.Latin1);
    else this.longText(value);
  }

  private longText(value: string): void {
    const { isWide, bytes } = this.longTexts.write(value);
    if (bytes.length < LONG_TEXT) {
      this.string(value, Tag.Latin1);
      return;
    }
    this.byte(isWide ? Tag.LongUtf16 : Tag.LongLatin1);
    this.varint(this.buffers.add(bytes.buffer, bytes.byteOffset, bytes.length, true));
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

  bigint(value: bigint): void {
    const negative = value < 0n;
    let hex = (negative ? -value : value).toString(16);
    if (hex.length % 2 === 1) hex = `0${hex}`;
    this.byte(negative ? Tag.NegativeBigInt : Tag.BigInt);
    this.varint(hex.length / 2);
    this.raw(Buffer.from(hex, 'hex'));
  }

  /** Lets go of the message's buffers. */
  protected endScalars(): void {
    this.buffers.clear();
    this.longTexts.clear();
  }
}
