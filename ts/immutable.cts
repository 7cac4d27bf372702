/**
 * Read-only buffers where V8 has them (Node 26 and later): a write in strict code throws at its line.
 *
 * The flag is asked for by version, since an older Node prints a line for one it does not know.
 */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { native } from './native.cjs';

/** First major version of Node whose V8 has immutable buffers behind the flag. */
const FIRST_NODE = 26;
export const IMMUTABLE_FLAG = '--js-immutable-arraybuffer';

type Transfer = (this: ArrayBuffer) => ArrayBuffer;

/** Whether this version of Node knows the flag. */
export const hasImmutableBuffers: boolean = Number(process.versions.node.split('.')[0]) >= FIRST_NODE;

function find(): Transfer | undefined {
  if (!hasImmutableBuffers) return undefined;
  const own = (ArrayBuffer.prototype as { transferToImmutable?: Transfer }).transferToImmutable;
  if (own !== undefined) return own;
  try {
    setFlagsFromString(IMMUTABLE_FLAG);
    // The present context was made without the method; a fresh one has it, and it works on buffers of this one. What it
    // gives belongs to the fresh one: made ours, so that `instanceof ArrayBuffer` holds.
    const foreign = runInNewContext('ArrayBuffer.prototype.transferToImmutable') as Transfer | undefined;
    if (foreign === undefined) return undefined;
    return function transferToImmutable() {
      return Object.setPrototypeOf(foreign.call(this), ArrayBuffer.prototype) as ArrayBuffer;
    };
  } catch {
    return undefined;
  }
}

const transfer = find();

/** Tells native code how buffers that come from the store are made read-only. */
export function shareTransfer(): void {
  if (transfer !== undefined) native.setTransfer(transfer);
}

/** The same bytes in a buffer that cannot be written, where there is such a thing; the argument is used up. */
export function immutable(buffer: ArrayBuffer): ArrayBuffer {
  return transfer === undefined ? buffer : transfer.call(buffer);
}
