/** The units of long strings, on their way out of band. */
import { BEYOND_LATIN1 } from './byte-writer.cjs';

/** Kept from message to message: pages that are there cost a fraction of new ones. */
const KEPT_LENGTH = 4 * 1024 * 1024;

/** Where the units of a text lie. */
export interface TextBytes {
  readonly isWide: boolean;
  readonly bytes: Uint8Array;
}

/** Memory for the long texts of a message. What it gave holds until {@link LongTexts.clear} is followed by more. */
export class LongTexts {
  private area: Buffer | undefined;
  private used = 0;

  /** The units of a text as bytes: one each where that is enough, else two, little endian. */
  write(text: string): TextBytes {
    const isWide = BEYOND_LATIN1.test(text);
    const length = isWide ? text.length * 2 : text.length;
    const bytes = this.take(length);
    if (isWide) bytes.ucs2Write(text, 0);
    else bytes.latin1Write(text, 0);
    return { isWide, bytes };
  }

  private take(length: number): Buffer {
    if (length > KEPT_LENGTH - this.used) return Buffer.allocUnsafeSlow(length);
    this.area ??= Buffer.allocUnsafeSlow(KEPT_LENGTH);
    const start = this.used;
    // The next text starts on an even address, as UTF-16 likes it.
    this.used += length + (length % 2);
    return this.area.subarray(start, start + length);
  }

  clear(): void {
    this.used = 0;
  }
}
