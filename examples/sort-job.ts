/** An external sort in two rounds of tasks: the object store holds what does not fit into memory on disk. */
import { get, type ObjectRef, remote, wait } from 'heliostat';
import { check, generate, RECORD, type Summary, sortRecords } from './records.ts';

/** How a store of a size is used: what runs at a time takes less than half of it. */
const CHUNKS = 16;
const PARTS = 32;
const KEYS = 2 ** 32;

export interface Job {
  readonly records: number;
  readonly chunks: number;
  readonly perChunk: number;
}

/** A sort of so many bytes with a store of `storeBytes`. */
export function plan(dataBytes: number, storeBytes: number): Job {
  const perChunk = Math.floor(storeBytes / CHUNKS / RECORD);
  const chunks = Math.ceil(dataBytes / (perChunk * RECORD));
  return { records: chunks * perChunk, chunks, perChunk };
}

const produce = remote(function produce(first: number, count: number) {
  return generate(first, count);
});

const split = remote(function split(chunk: Uint32Array, keys: number, parts: number) {
  return sortRecords([chunk], 0, keys, parts);
}).options({ numReturns: PARTS });

const merge = remote(function merge(low: number, high: number, ...pieces: Uint32Array[]) {
  return sortRecords(pieces, low, high, 1)[0];
});

const verify = remote(function verify(part: Uint32Array): Summary {
  return check(part);
});

/** Makes the records in the object store. */
export async function produceRecords({ chunks, perChunk }: Job): Promise<ObjectRef<Uint32Array>[]> {
  const refs = Array.from({ length: chunks }, (_, i) => produce.remote(i * perChunk, perChunk));
  await wait(refs, { numReturns: refs.length });
  return refs;
}

/** Sorts; takes the chunks and gives them back to the store as they are done. The parts are in the order of their keys. */
export async function sortChunks(chunks: ObjectRef<Uint32Array>[]): Promise<ObjectRef<Uint32Array>[]> {
  const pieces = chunks.map((chunk) => {
    // Drafts arrive as what they became.
    const made = split.remote(chunk, KEYS, PARTS) as unknown as ObjectRef<Uint32Array>[];
    // The task keeps it until it has run.
    chunk[Symbol.dispose]();
    return made;
  });
  const parts = Array.from({ length: PARTS }, (_, part) => {
    const width = KEYS / PARTS;
    const mine = pieces.map((made) => made[part] as ObjectRef<Uint32Array>);
    const merged = merge.remote(part * width, (part + 1) * width, ...mine);
    for (const piece of mine) piece[Symbol.dispose]();
    return merged as ObjectRef<Uint32Array>;
  });
  await wait(parts, { numReturns: parts.length });
  return parts;
}

/** Looks at every byte of the sorted parts; how many records they have. */
export async function verifyParts(parts: readonly ObjectRef<Uint32Array>[], { records }: Job): Promise<number> {
  const summaries = await get(parts.map((part) => verify.remote(part)));
  let last = 0;
  for (const [i, { count, first, last: next }] of summaries.entries()) {
    if (count > 0 && first < last) throw new Error(`part ${i} begins before the end of the one before it`);
    last = count > 0 ? next : last;
  }
  const count = summaries.reduce((sum, part) => sum + part.count, 0);
  const sum = summaries.reduce((total, part) => total + part.sum, 0);
  if (count !== records || sum !== (records * (records - 1)) / 2)
    throw new Error(`${count} of ${records} records are there`);
  return count;
}
