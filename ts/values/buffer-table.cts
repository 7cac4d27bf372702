import { types } from 'node:util';
import type { ByteWriter } from './byte-writer.cjs';
import { BUFFER_INLINE, BUFFER_RESIZABLE, BUFFER_SHARED, OUT_OF_BAND_MINIMUM } from './format.cjs';
import { Refusal } from './refusal.cjs';
import { lengthOf, resizableTo } from './slots.cjs';

/** A range of a buffer that the value shows; its number is its place in the list. */
interface Region {
  readonly source: Source;
  readonly start: number;
  readonly end: number;
  storage: Storage | undefined;
}

/** A buffer of the user's. */
interface Source {
  readonly buffer: ArrayBufferLike;
  readonly regions: Region[];
  /** Only Node Buffers show it: they share a pool by accident, so they need not share it on the other side. */
  pooled: boolean;
}

/** A range that is sent and becomes one buffer on the other side. */
interface Storage {
  readonly index: number;
  readonly source: Source;
  readonly start: number;
  end: number;
}

/** Collects the buffers of a message, joins what shares memory, and writes the tables at its end. */
export class BufferTable {
  private readonly sources = new Map<ArrayBufferLike, Source>();
  private readonly regions: Region[] = [];

  get isEmpty(): boolean {
    return this.regions.length === 0;
  }

  clear(): void {
    if (this.regions.length === 0) return;
    this.sources.clear();
    this.regions.length = 0;
  }

  /** The number of a new region. */
  add(buffer: ArrayBufferLike, start: number, length: number, fromPool: boolean): number {
    let source = this.sources.get(buffer);
    if (source === undefined) {
      if (lengthOf(buffer) === 0 && isDetached(buffer)) {
        throw new Refusal('its ArrayBuffer is detached', 'Send it before it is transferred');
      }
      source = { buffer, regions: [], pooled: true };
      this.sources.set(buffer, source);
    }
    if (!fromPool) source.pooled = false;
    const region: Region = { source, start, end: start + length, storage: undefined };
    source.regions.push(region);
    return this.regions.push(region) - 1;
  }

  /** Writes storages and regions; returns the bytes that travel beside the header, in the order of their storages. */
  write(out: ByteWriter): ArrayBufferView[] {
    const storages: Storage[] = [];
    for (const source of this.sources.values()) join(source, storages);
    const outOfBand: ArrayBufferView[] = [];
    out.varint(storages.length);
    for (const { source, start, end } of storages) {
      const bytes = new Uint8Array(source.buffer, start, end - start);
      const limit = resizableTo(source.buffer);
      const inline = bytes.length < OUT_OF_BAND_MINIMUM;
      out.byte(
        (inline ? BUFFER_INLINE : 0) |
          (types.isSharedArrayBuffer(source.buffer) ? BUFFER_SHARED : 0) |
          (limit > 0 ? BUFFER_RESIZABLE : 0),
      );
      out.varint(bytes.length);
      if (limit > 0) out.varint(limit);
      if (inline) out.raw(bytes);
      else outOfBand.push(bytes);
    }
    out.varint(this.regions.length);
    for (const { storage, start, end } of this.regions) {
      const { index, start: origin } = storage as Storage;
      out.varint(index);
      out.varint(start - origin);
      out.varint(end - start);
    }
    return outOfBand;
  }
}

/** Decides which regions of a buffer share a storage. */
function join(source: Source, storages: Storage[]): void {
  const regions = source.regions.length === 1 ? source.regions : source.regions.toSorted((a, b) => a.start - b.start);
  const whole = resizableTo(source.buffer) > 0;
  let storage: Storage | undefined;
  for (const region of regions) {
    if (storage === undefined || (source.pooled && !whole && region.start >= storage.end)) {
      // Eight is a multiple of every element size: whatever starts behind a common start stays aligned.
      const lone = regions.length === 1 || source.pooled;
      const start = whole ? 0 : lone ? region.start : region.start - (region.start % 8);
      storage = { index: storages.length, source, start, end: region.end };
      storages.push(storage);
    }
    region.storage = storage;
    if (region.end > storage.end) storage.end = region.end;
  }
  if (whole && storage !== undefined) storage.end = lengthOf(source.buffer);
}

function isDetached(buffer: ArrayBufferLike): boolean {
  try {
    new Uint8Array(buffer);
    return false;
  } catch {
    return true;
  }
}
