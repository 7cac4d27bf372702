/**
 * What builtin objects hold inside, asked of the classes' own accessors: own properties of the same names, which any
 * program may define, do not come between.
 */
import { types } from 'node:util';

type Getter<T> = (this: unknown) => T;

function getter<T>(prototype: object, name: string | symbol): Getter<T> {
  const get = Object.getOwnPropertyDescriptor(prototype, name)?.get as Getter<T> | undefined;
  if (get === undefined) throw new TypeError(`this runtime has no getter ${String(name)}`);
  return get;
}

function optional<T>(prototype: object, name: string): Getter<T> | undefined {
  return Object.getOwnPropertyDescriptor(prototype, name)?.get as Getter<T> | undefined;
}

const TYPED_ARRAY = Object.getPrototypeOf(Uint8Array.prototype) as object;
const typedName = getter<string | undefined>(TYPED_ARRAY, Symbol.toStringTag);
const typedLength = getter<number>(TYPED_ARRAY, 'length');

function viewGetters(prototype: object) {
  return {
    buffer: getter<ArrayBufferLike>(prototype, 'buffer'),
    byteOffset: getter<number>(prototype, 'byteOffset'),
    byteLength: getter<number>(prototype, 'byteLength'),
  };
}

const ofTyped = viewGetters(TYPED_ARRAY);
const ofDataView = viewGetters(DataView.prototype);

/** The class of a view, by its slots; undefined for a DataView. */
export function typedArrayName(view: ArrayBufferView): string | undefined {
  return typedName.call(view);
}

/** Elements of a typed array; 0 for a DataView. */
export function typedArrayLength(view: ArrayBufferView): number {
  return types.isTypedArray(view) ? typedLength.call(view) : 0;
}

/** The part of a buffer that a view shows. */
export function rangeOf(view: ArrayBufferView): { buffer: ArrayBufferLike; byteOffset: number; byteLength: number } {
  const { buffer, byteOffset, byteLength } = types.isTypedArray(view) ? ofTyped : ofDataView;
  return { buffer: buffer.call(view), byteOffset: byteOffset.call(view), byteLength: byteLength.call(view) };
}

/** The bytes that a view shows. */
export function bytesOf(view: ArrayBufferView): Uint8Array {
  const { buffer, byteOffset, byteLength } = rangeOf(view);
  return new Uint8Array(buffer, byteOffset, byteLength);
}

const bufferLength = getter<number>(ArrayBuffer.prototype, 'byteLength');
const sharedLength = getter<number>(SharedArrayBuffer.prototype, 'byteLength');
// Node 20 has them; the types of ES2022 do not.
const isResizable = optional<boolean>(ArrayBuffer.prototype, 'resizable');
const largestLength = optional<number>(ArrayBuffer.prototype, 'maxByteLength');

/** Bytes of a buffer; 0 when it is detached. */
export function lengthOf(buffer: ArrayBufferLike): number {
  return (types.isSharedArrayBuffer(buffer) ? sharedLength : bufferLength).call(buffer);
}

/** The size up to which a buffer may be resized; 0 when its length is fixed, or it is shared. */
export function resizableTo(buffer: ArrayBufferLike): number {
  if (types.isSharedArrayBuffer(buffer) || isResizable?.call(buffer) !== true) return 0;
  return largestLength?.call(buffer) ?? 0;
}

export const sourceOf = getter<string>(RegExp.prototype, 'source');
export const hrefOf = getter<string>(URL.prototype, 'href');

/** The order in which `flags` lists them. */
const FLAGS = (
  [
    ['d', 'hasIndices'],
    ['g', 'global'],
    ['i', 'ignoreCase'],
    ['m', 'multiline'],
    ['s', 'dotAll'],
    ['u', 'unicode'],
    ['v', 'unicodeSets'],
    ['y', 'sticky'],
  ] as const
).flatMap(([flag, name]) => {
  const get = optional<boolean>(RegExp.prototype, name);
  return get === undefined ? [] : [{ flag, get }];
});

/** Flags of a regular expression: `flags` itself reads properties that may be the program's. */
export function flagsOf(value: RegExp): string {
  let flags = '';
  for (const { flag, get } of FLAGS) if (get.call(value)) flags += flag;
  return flags;
}

export const messageOf = getter<string>(DOMException.prototype, 'message');
export const nameOf = getter<string>(DOMException.prototype, 'name');

/** Where the runtime keeps the state of its own classes: symbols that are not the program's. */
const STATE = new Set<string | symbol>(
  [new DOMException(), new URL('a:b'), new URLSearchParams()].flatMap((fresh) => Object.getOwnPropertySymbols(fresh)),
);

/** The own keys of an object of such a class that the program gave it. */
export function givenKeys(value: object): (string | symbol)[] {
  return Reflect.ownKeys(value).filter((key) => !STATE.has(key));
}
