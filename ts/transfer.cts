/** Values between this thread and the cluster: the codec's parts and native code's. */
import { createHash } from 'node:crypto';
import { types } from 'node:util';
import type { Buffers, RawValue } from '#native' with { 'resolution-mode': 'import' };
import { draftView, takeDraft } from './draft.cjs';
import { classOfCode, ERROR_CLASSES, HeliostatError, SerializationError } from './errors.cjs';
import { collectGarbage } from './garbage.cjs';
import { immutable } from './immutable.cjs';
import { native } from './native.cjs';
import { adoptRef, handleOf, ObjectRef, sweepRefs } from './object-ref.cjs';
import { decode, type Encoded, encode, prepare, setHooks } from './values/index.cjs';
import { ownClass } from './values/own-classes.cjs';
import { NOT_PLAIN, PlainCodec } from './values/primitives.cjs';

/** What marks the generators of this package, in all its copies. */
export const STREAM: unique symbol = Symbol.for('heliostat.stream') as never;

setHooks({
  isRef: (value) => value instanceof ObjectRef,
  refusal: (value) => (STREAM in value ? STREAMS_STAY : undefined),
  isDraft: draftView,
  serializationError: (path, reason, hint) =>
    new SerializationError(`cannot send ${path}: ${reason}${hint === '' ? '' : `. ${hint}`}`, {
      path,
      hint: hint || undefined,
    }),
  packageName: 'heliostat',
  resolveSelf: () => require('./index.cjs') as unknown,
  errorClasses: () => ERROR_CLASSES,
  loadOwnClass(name) {
    if (name === 'Tensor') require('./tensor.cjs');
    return ownClass(name);
  },
});

const STREAMS_STAY = {
  reason: 'is an ObjectRefGenerator, which has one consumer',
  hint: 'Take its items here and send their references, or call the remote generator where they are wanted',
};

/** Hands parts of a value to native code: header, its length, buffers or a draft, handles of its references. */
export type Take<R> = (header: Uint8Array, headerLength: number, buffers: Buffers, refs: number[]) => R;

/** Encodes a value and hands its parts to `take` before anything else can run. Drafts inside are sealed with it. */
export function withEncoded<R>(value: unknown, take: Take<R>): R {
  return withParts(encode(value), take);
}

/** Like {@link withEncoded}, for what is encoded already. */
export function withParts<R>({ header, buffers, refs, seals }: Encoded, take: Take<R>): R {
  const handles = refs.map((ref) => handleOf(ref as ObjectRef));
  const [draft] = seals;
  if (draft === undefined) return take(header, header.byteLength, buffers, handles);
  if (seals.length === 1 && buffers.length === 1) {
    const sealed = takeDraft(draft);
    if (sealed >= 0) return take(header, header.byteLength, sealed, handles);
  }
  // Several pieces of memory become one object: copied, then given back.
  const result = take(header, header.byteLength, buffers, handles);
  for (const each of seals) (each as Disposable)[Symbol.dispose]();
  return result;
}

/** Identifies what was encoded: text, captured values and captured references. */
export function contentHash(encoded: Encoded): Uint8Array {
  const hash = createHash('sha256').update(encoded.header);
  for (const { buffer, byteOffset, byteLength } of encoded.buffers)
    hash.update(new Uint8Array(buffer, byteOffset, byteLength));
  for (const ref of encoded.refs) hash.update((ref as ObjectRef).id);
  return hash.digest();
}

/** A value on its way through promises, which would take a thenable for one of them. */
export interface Boxed {
  value: unknown;
}

/** Decodes a value that native code read. Its references become handles of this program. */
export function fromRaw(raw: RawValue): Boxed | Promise<Boxed> {
  const ready = prepare(raw.header);
  if (ready === undefined) return { value: decodeNow(raw) };
  return ready.then(
    () => ({ value: decodeNow(raw) }),
    (error: unknown) => {
      dropRefs(raw);
      throw error;
    },
  );
}

/** Whether a value needs imports first. Who waits for them, if anybody, asks again. */
function isLater(header: Uint8Array): boolean {
  const ready = prepare(header);
  ready?.catch(() => undefined);
  return ready !== undefined;
}

/** Like {@link fromRaw}, for code that cannot wait. */
export function fromRawSync(raw: RawValue): unknown {
  if (!isLater(raw.header)) return decodeNow(raw);
  dropRefs(raw);
  throw new SerializationError('this value contains a function whose imports are not loaded in this process yet', {
    hint: 'use `await get(ref)` for it: importing its packages takes a turn of the event loop',
  });
}

function decodeNow(raw: RawValue): unknown {
  const { length } = raw.refs;
  const refs = new Array<ObjectRef>(length);
  for (let index = 0; index < length; index++) refs[index] = adoptRef(raw.refs[index] as number);
  return decode({
    header: raw.header,
    buffers: raw.buffers,
    refs: (index) => refs[index] as ObjectRef,
    release: native.detachView,
    own: immutable,
  });
}

/** Memory that small values pass through, known to native code. */
export interface Scratch {
  bytes: Uint8Array;
  words: DataView;
  plain: PlainCodec;
}

/** This thread's scratch memory; none where that is refused. */
export const scratch: Scratch | undefined = openScratch();

function openScratch(): Scratch | undefined {
  const bytes = native.scratch();
  if (bytes === undefined) return undefined;
  return { bytes, words: new DataView(bytes.buffer), plain: new PlainCodec(bytes) };
}

/** What {@link readSmall} gives when the value is not a small one that is here. */
export const NOT_SMALL = Symbol('not small');

/** Bytes of position and handle of an argument by reference. */
const PAIR = 8;
const TABLE = 16;
const ENTRY = 16;

/**
 * The value of a handle when it is small, inline and ready: copied once, decoded at once. The layout is that of
 * `heliostat_proto::blob`.
 */
export function readSmall(handle: number): unknown {
  if (scratch === undefined || native.readSmall(handle) < 0) return NOT_SMALL;
  const { bytes, words, plain } = scratch;
  const length = words.getUint32(4, true);
  const count = words.getUint32(8, true);
  const at = TABLE + count * ENTRY;
  if (count === 0) {
    const value = plain.read(at, at + length);
    if (value !== NOT_PLAIN) return value;
  }
  // Reading it may run code that uses the memory.
  const header = bytes.slice(at, at + length);
  if (isLater(header)) return NOT_SMALL;
  const buffers: ArrayBuffer[] = [];
  for (let entry = TABLE; entry < at; entry += ENTRY) {
    const offset = words.getUint32(entry, true);
    buffers.push(immutable(bytes.slice(offset, offset + words.getUint32(entry + 8, true)).buffer));
  }
  return decode({ header, buffers, refs: noRefs, own: immutable });
}

/** Bytes before the header of a value without buffers and references. */
const HEAD = 16;
/** Longest header of a value that stays inline. */
let longest = 0;

/** Sets the bytes up to which values stay inline. */
export function setInlineLimit(bytes: number): void {
  longest = bytes - HEAD;
}

/** Encodes a value into the scratch memory; the length of its header, or the encoded value when it is more than that. */
export function writeSmall(value: unknown): number | Encoded {
  if (scratch !== undefined) {
    const length = scratch.plain.write(value);
    if (length >= 0 && length <= longest) return length;
  }
  const encoded = encode(value);
  const length = intoScratch(encoded);
  return length >= 0 ? length : encoded;
}

/**
 * The arguments of a call in the scratch memory, with position and handle of those by reference behind the others: the
 * length of the others' header, or -1 for other than a few primitives and references.
 */
export function writeSmallCall(values: readonly unknown[], positions: number[], handles: number[]): number {
  if (scratch === undefined) return -1;
  const { bytes, words, plain } = scratch;
  const length = plain.writeArray(values);
  if (length < 0 || length > longest || length + positions.length * PAIR > bytes.byteLength) return -1;
  for (let index = 0; index < positions.length; index++) {
    words.setUint32(length + index * PAIR, positions[index] as number, true);
    words.setUint32(length + index * PAIR + 4, handles[index] as number, true);
  }
  return length;
}

function intoScratch({ header, buffers, refs, seals }: Encoded): number {
  if (scratch === undefined || buffers.length + refs.length + seals.length > 0) return -1;
  if (header.byteLength > Math.min(scratch.bytes.byteLength, longest)) return -1;
  scratch.bytes.set(header);
  return header.byteLength;
}

/** Stores a value, and returns its handle. */
export function putValue(value: unknown): number {
  const written = writeSmall(value);
  return typeof written === 'number' ? native.putSmall(written) : withParts(written, native.put);
}

/** Decodes a value that is a header and nothing else. */
export function fromHeader(header: Uint8Array): Boxed | Promise<Boxed> {
  return fromRaw({ header, buffers: [], refs: [] });
}

function noRefs(): never {
  throw new SerializationError('a value without references refers to one');
}

function dropRefs(raw: RawValue): void {
  for (const handle of raw.refs) native.release(handle);
}

/** Lets go of everything in the store that only garbage of this thread still holds. */
export function letGarbageGo(): void {
  collectGarbage();
  native.sweepViews();
  sweepRefs();
}

/** A thread that read this part of the store looks what of it is garbage; when it holds twice as much, it collects. */
const LOOK_AFTER = 1 / 8;
let capacity = Number.POSITIVE_INFINITY;
let given = 0;

/** Sets the size of the store, in bytes. */
export function setCapacity(bytes: number): void {
  capacity = bytes;
  given = 0;
}

/** Buffers that were given before and are still alive: giving one again takes no more of the store. */
const known = new WeakSet<ArrayBuffer>();

/**
 * Notes that views of these buffers were given to the program. Others may wait for the room that its garbage holds, and
 * the engine does not hurry for memory that is not its own.
 */
export function noteGiven(buffers: readonly ArrayBuffer[]): void {
  for (const buffer of buffers) {
    if (known.has(buffer)) continue;
    known.add(buffer);
    given += buffer.byteLength;
  }
  if (given < capacity * LOOK_AFTER) return;
  given = 0;
  native.sweepViews();
  if (native.heldBytes() > 2 * LOOK_AFTER * capacity) letGarbageGo();
}

/** Native code's errors carry a code; users get the class that belongs to it. */
export function translated<R>(call: () => R): R {
  try {
    return call();
  } catch (error) {
    throw translate(error);
  }
}

function translate(error: unknown): unknown {
  if (!types.isNativeError(error) || error instanceof HeliostatError) return error;
  const marked = /^([A-Z_]+): (.*)$/s.exec(error.message);
  const code = marked?.[1] ?? (error as { code?: string }).code;
  if (typeof code !== 'string' || !/^[A-Z_]+$/.test(code)) return error;
  const type = classOfCode(code);
  if (type === HeliostatError && code !== 'NODE_START' && code !== 'INTERNAL') return error;
  return Object.assign(
    new type(marked?.[2] ?? error.message, { cause: error }),
    type === HeliostatError ? { code } : {},
  );
}
