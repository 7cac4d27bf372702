/** Storages and regions of a header: lengths are checked before anything is made. */
import { types } from 'node:util';
import type { ByteReader } from './byte-reader.cjs';
import {
  BUFFER_INLINE,
  BUFFER_KIND,
  BUFFER_RESIZABLE,
  BUFFER_SHARED,
  DATA_VIEW_KIND,
  VIEW_ELEMENT_SIZES,
  VIEW_NAMES,
} from './format.cjs';
import type { DecodeSource } from './reader.cjs';
import { MalformedHeader, Refusal } from './refusal.cjs';

interface Storage {
  readonly flags: number;
  readonly length: number;
  readonly limit: number;
  /** The bytes in the header, or the buffer beside it. */
  readonly bytes: Uint8Array | ArrayBuffer;
  made: ArrayBufferLike | undefined;
  /** Texts were made of it, which are copies. */
  wasText: boolean;
}

interface Region {
  readonly storage: Storage;
  readonly offset: number;
  readonly length: number;
}

type ResizableConstructor = new (length: number, options: { maxByteLength: number }) => ArrayBuffer;
type ViewConstructor = new (buffer: ArrayBufferLike, offset: number, length: number) => ArrayBufferView;

/** A header may not make this process reserve more than its writer could have had. */
const LARGEST_LIMIT = 2 ** 36;

/** The buffers of a message, made when a value first shows them. */
export class Buffers {
  private readonly regions: readonly Region[];
  private readonly own: ((buffer: ArrayBuffer) => ArrayBuffer) | undefined;

  constructor(regions: readonly Region[], own: ((buffer: ArrayBuffer) => ArrayBuffer) | undefined) {
    this.regions = regions;
    this.own = own;
  }

  /** The view of some kind over a region. */
  view(kind: number, index: number): ArrayBufferView {
    const region = this.region(index);
    const name = VIEW_NAMES[kind];
    const size = VIEW_ELEMENT_SIZES[kind];
    if (name === undefined || size === undefined) throw new MalformedHeader('a kind of view is unknown');
    const { offset, length } = region;
    if (length % size !== 0 || offset % size !== 0) throw new MalformedHeader('a view is out of step');
    const buffer = this.make(region.storage);
    // Buffer.from would ask the buffer for its length, which may have a property of that name.
    if (kind === BUFFER_KIND) return Object.setPrototypeOf(new Uint8Array(buffer, offset, length), Buffer.prototype);
    if (kind === DATA_VIEW_KIND) return new DataView(buffer, offset, length);
    const type = (globalThis as unknown as Record<string, ViewConstructor | undefined>)[name];
    if (type === undefined) throw new Refusal(`holds a ${name}, which this runtime lacks`, 'Use a newer Node');
    return new type(buffer, offset, length / size);
  }

  /** The units of a text. */
  text(index: number): Uint8Array {
    const { storage, offset, length } = this.region(index);
    storage.wasText = true;
    const { bytes } = storage;
    if (types.isArrayBuffer(bytes)) return new Uint8Array(bytes, offset, length);
    return bytes.subarray(offset, offset + length);
  }

  /** Lets go of the buffers that were texts and nothing else. */
  release(release: (buffer: ArrayBuffer) => void): void {
    for (const { storage } of this.regions) {
      const { wasText, made, bytes } = storage;
      if (wasText && made === undefined && types.isArrayBuffer(bytes)) release(bytes);
      storage.wasText = false;
    }
  }

  /** The buffer that a region covers. */
  whole(index: number): ArrayBufferLike {
    const { storage, offset, length } = this.region(index);
    if (offset !== 0 || length !== storage.length) throw new MalformedHeader('a buffer is cut');
    return this.make(storage);
  }

  private region(index: number): Region {
    const region = this.regions[index];
    if (region === undefined) throw new MalformedHeader('a buffer is missing');
    return region;
  }

  private make(storage: Storage): ArrayBufferLike {
    if (storage.made !== undefined) return storage.made;
    const { flags, bytes, length, limit } = storage;
    const special = (flags & (BUFFER_SHARED | BUFFER_RESIZABLE)) !== 0;
    if (!special && types.isArrayBuffer(bytes)) {
      storage.made = bytes;
    } else {
      let made: ArrayBufferLike;
      if ((flags & BUFFER_SHARED) !== 0) made = new SharedArrayBuffer(length);
      else if (limit > 0) made = new (ArrayBuffer as unknown as ResizableConstructor)(length, { maxByteLength: limit });
      else made = new ArrayBuffer(length);
      new Uint8Array(made).set(types.isArrayBuffer(bytes) ? new Uint8Array(bytes) : bytes);
      storage.made = special || this.own === undefined ? made : this.own(made as ArrayBuffer);
    }
    return storage.made;
  }
}

/** Reads both tables. */
export function readBuffers(reader: ByteReader, source: DecodeSource): Buffers {
  const storages: Storage[] = [];
  let outOfBand = 0;
  for (let left = reader.count(2); left > 0; left--) {
    const flags = reader.byte();
    const length = reader.varint();
    const limit = (flags & BUFFER_RESIZABLE) !== 0 ? reader.varint() : 0;
    if (limit !== 0 && (limit < length || limit > LARGEST_LIMIT)) throw new MalformedHeader('a buffer has odd limits');
    let bytes: Uint8Array | ArrayBuffer | undefined;
    if ((flags & BUFFER_INLINE) !== 0) bytes = reader.raw(length);
    else bytes = source.buffers[outOfBand++];
    if (bytes === undefined || bytes.byteLength !== length) throw new MalformedHeader('a buffer is missing');
    storages.push({ flags, length, limit, bytes, made: undefined, wasText: false });
  }
  const regions: Region[] = [];
  for (let left = reader.count(3); left > 0; left--) {
    const storage = storages[reader.varint()];
    const offset = reader.varint();
    const length = reader.varint();
    if (storage === undefined || offset + length > storage.length) throw new MalformedHeader('a view is out of bounds');
    regions.push({ storage, offset, length });
  }
  return new Buffers(regions, source.own);
}
