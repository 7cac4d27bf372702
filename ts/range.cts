/** Parts of spilled values, read from storage without bringing the values back. */
import { native } from './native.cjs';
import { decode, prepare } from './values/index.cjs';

/** Of the blob's layout: see `heliostat_proto::blob`. */
const TABLE = 16;
const ENTRY = 16;
/** Enough for the head of most values with buffers. */
const HEAD = 4096;

/** A value that is bytes, and where those lie in its serialised form. */
interface Extent {
  value: unknown;
  offset: number;
  byteLength: number;
}

/**
 * Finds the bytes of a serialised value that is one ArrayBuffer or one view of one; `undefined` for other values. Reads the head of it only.
 */
export async function extentOf(handle: number, length: number): Promise<Extent | undefined> {
  let head = await native.readPart(handle, 0, Math.min(HEAD, length));
  const words = () => new DataView(head.buffer, head.byteOffset, head.byteLength);
  const headerLength = words().getUint32(4, true);
  const count = words().getUint32(8, true);
  if (count !== 1) return undefined;
  const at = TABLE + count * ENTRY;
  if (at + headerLength > head.byteLength) head = await native.readPart(handle, 0, at + headerLength);
  const offset = Number(words().getBigUint64(TABLE, true));
  const byteLength = Number(words().getBigUint64(TABLE + 8, true));
  const header = head.subarray(at, at + headerLength);
  const ready = prepare(header);
  if (ready !== undefined) return undefined;
  // Stands for the real one to decode the header with: its pages are never touched.
  const buffer = new ArrayBuffer(byteLength);
  const value = decode({ header, buffers: [buffer], refs: noRefs, own: (own) => own });
  if (value === buffer) return { value, offset, byteLength };
  if (!ArrayBuffer.isView(value) || value.buffer !== buffer) return undefined;
  return { value, offset: offset + value.byteOffset, byteLength: value.byteLength };
}

function noRefs(): never {
  throw new TypeError('bytes hold no references');
}
