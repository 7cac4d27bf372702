/** Telling an array's own named properties from its elements, and unusual elements from others. */
import { inspect } from 'node:util';
import { FROZEN, SEALED } from './format.cjs';
import { isKnownArray, isKnownView } from './hidden-classes.cjs';
import { rangeOf, typedArrayLength, typedArrayName } from './slots.cjs';

/** Longer views are not asked for their keys: a string would be made for each element. */
const LISTED_LENGTH = 2 ** 20;

/** Whether a property name is an array index. */
export function isIndex(key: string): boolean {
  const index = Number(key) >>> 0;
  return String(index) === key && index !== 0xffffffff;
}

/** Whether an array can be extended and carries nothing but elements that are ordinary properties. */
export function isOrdinaryArray(array: readonly unknown[]): boolean {
  if (isKnownArray(array)) return true;
  if (!Object.isExtensible(array) || Object.getOwnPropertySymbols(array).length > 0) return false;
  const names = Object.getOwnPropertyNames(array);
  // Indices come first, then the array's own length, then what was added; holes have no name.
  if (names.pop() !== 'length' || Object.getOwnPropertyDescriptor(array, 'length')?.writable !== true) return false;
  return names.every((name) => isOrdinary(Object.getOwnPropertyDescriptor(array, name)));
}

function isOrdinary(property: PropertyDescriptor | undefined): boolean {
  return property?.writable === true && property.enumerable === true && property.configurable === true;
}

/**
 * The keys of an array's properties that its elements, in a state of extensibility, do not tell: unusual elements, what
 * was added, and the length where it is fixed.
 */
export function unusualKeys(array: readonly unknown[], extensibility: number): (string | symbol)[] {
  const keys = Reflect.ownKeys(array).filter((key) => {
    if (typeof key === 'symbol' || !isIndex(key)) return key !== 'length';
    return !isUsual(Object.getOwnPropertyDescriptor(array, key) as PropertyDescriptor, extensibility);
  });
  const isFixed = Object.getOwnPropertyDescriptor(array, 'length')?.writable === false;
  return isFixed && extensibility !== FROZEN ? [...keys, 'length'] : keys;
}

/** Whether sealing and freezing an ordinary element gives this one. */
function isUsual({ writable, enumerable, configurable }: PropertyDescriptor, extensibility: number): boolean {
  if (extensibility === FROZEN) return enumerable === true && writable === false;
  return enumerable === true && writable === true && configurable === (extensibility !== SEALED);
}

/** Whether a view has properties of its own. */
export function hasNamedViewProperties(view: ArrayBufferView): boolean {
  if (isKnownView(view)) return false;
  const length = typedArrayLength(view);
  if (length <= LISTED_LENGTH) return Object.getOwnPropertyNames(view).length > length;
  // Whatever it has beside its elements makes its text another one than that of a fresh view of the same memory.
  const text = summary(view);
  return text === undefined || text !== summary(pristineTwin(view));
}

function pristineTwin(view: ArrayBufferView): object {
  const { buffer, byteOffset } = rangeOf(view);
  const length = typedArrayLength(view);
  const name = typedArrayName(view) as 'Uint8Array';
  const prototype = Object.getPrototypeOf(view) as object | null;
  return Object.setPrototypeOf(new globalThis[name](buffer, byteOffset, length), prototype) as object;
}

/** Node lists the named properties of an array apart from its elements only here. */
function summary(view: object): string | undefined {
  try {
    return inspected(view);
  } catch {
    // It read a property that throws, so there is one.
    return undefined;
  }
}

function inspected(view: object): string {
  return inspect(view, {
    maxArrayLength: 0,
    depth: 0,
    showHidden: true,
    customInspect: false,
    colors: false,
    numericSeparator: false,
    compact: true,
    breakLength: Number.POSITIVE_INFINITY,
  });
}
