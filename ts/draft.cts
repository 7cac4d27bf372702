/** Drafts: memory of the store to fill in place, so that a put copies nothing at all. */
import * as check from './check.cjs';
import { HeliostatError } from './errors.cjs';
import { native } from './native.cjs';
import type { ObjectRef } from './object-ref.cjs';
import type { Draft, TypedArray } from './types.cjs';

type ArrayClass<A extends TypedArray> = new (buffer: ArrayBuffer, byteOffset: number, length: number) => A;

/** Largest buffer that Node takes from outside of its own memory. */
const MAX_BYTES = 2 ** 32;

/** What sealing needs of a draft, kept off the public class. */
interface Internals {
  take(draft: SharedDraft<TypedArray>): number;
  view(draft: SharedDraft<TypedArray>): TypedArray;
}

let internals: Internals;
let store: (value: unknown, from: CallableFunction) => ObjectRef<any>;

/** Breaks the circle between drafts and storing them. */
export function setStore(put: typeof store): void {
  store = put;
}

/** A {@link Draft} over the store's memory. */
export class SharedDraft<A extends TypedArray> implements Draft<A> {
  readonly #draft: number;
  readonly #bytes: number;
  #view: A | undefined;

  constructor(type: ArrayClass<A>, length: number, bytes: number) {
    const [draft, buffer] = bytes === 0 ? [-1, new ArrayBuffer(0)] : native.allocate(bytes);
    this.#draft = draft;
    this.#bytes = bytes;
    this.#view = new type(buffer, 0, length);
  }

  /** The memory; empty once the draft was sealed or dropped. */
  get view(): A {
    return this.#open();
  }

  /** Makes it an object. Nothing is copied; the view is detached. */
  seal(): ObjectRef<A> {
    return store(this, SharedDraft.prototype.seal);
  }

  [Symbol.dispose](): void {
    const view = this.#view;
    this.#view = undefined;
    if (view !== undefined && this.#draft >= 0 && view.buffer.byteLength > 0) {
      native.dropDraft(this.#draft, view.buffer as ArrayBuffer);
    }
  }

  #open(): A {
    if (this.#view === undefined) {
      throw new TypeError('this draft was sealed or dropped: its memory is no longer writable');
    }
    if (this.#view.buffer.byteLength !== this.#bytes) {
      throw new TypeError(
        "this draft's buffer was transferred elsewhere, where it can still be written: it cannot be sealed",
      );
    }
    return this.#view;
  }

  /** Takes the memory away from JavaScript; the number that native code seals it by. */
  #take(): number {
    const { buffer } = this.#open();
    this.#view = undefined;
    if (this.#draft >= 0) native.detachDraft(buffer as ArrayBuffer);
    return this.#draft;
  }

  static {
    internals = { take: (draft) => draft.#take(), view: (draft) => draft.#open() };
  }
}

/** The view of a draft, if the value is one. */
export function draftView(value: object): TypedArray | undefined {
  return value instanceof SharedDraft ? internals.view(value as SharedDraft<TypedArray>) : undefined;
}

/** Ends the writing of a draft; see {@link SharedDraft}. */
export function takeDraft(draft: object): number {
  return internals.take(draft as SharedDraft<TypedArray>);
}

/**
 * Zeroed memory in the shared store to fill in place: no copy at all on put.
 *
 * A draft that is dropped unsealed gives its memory back. It may also stand anywhere in a value that is put, returned or
 * passed: it is sealed with it.
 */
export function allocateDraft<A extends TypedArray>(type: ArrayClass<A>, length: number): Draft<A> {
  const bytesPerElement = (type as unknown as { BYTES_PER_ELEMENT?: number } | undefined)?.BYTES_PER_ELEMENT;
  if (
    typeof type !== 'function' ||
    typeof bytesPerElement !== 'number' ||
    !TYPED_ARRAYS.some((base) => type.prototype instanceof base)
  ) {
    throw new TypeError(`allocate() takes a typed array class such as Float64Array, got ${check.describe(type)}`);
  }
  check.number(length ?? Number.NaN, 'length', { min: 0, max: Math.floor(MAX_BYTES / bytesPerElement), integer: true });
  try {
    return new SharedDraft(type, length, length * bytesPerElement);
  } catch (error) {
    if (error instanceof HeliostatError || (error as { code?: string }).code !== 'NO_EXTERNAL_BUFFERS') throw error;
    throw new TypeError(
      'this runtime does not allow buffers outside of its own memory: fill an array of your own and put it',
      { cause: error },
    );
  }
}

/** Test runners lend Node's Uint8Array to a realm that has its own of all other classes. */
const TYPED_ARRAYS = [Uint8Array, Int8Array].map(
  (type) => Object.getPrototypeOf(type) as abstract new () => TypedArray,
);
