/** Telling an array's own named properties from its elements without listing the elements. */
import { inspect } from 'node:util';
import { rangeOf, typedArrayLength, typedArrayName } from './slots.cjs';

/** Longer arrays are not asked for their keys: a string would be made for each element. */
const LISTED_LENGTH = 32;

/** Whether a property name is an array index. */
export function isIndex(key: string): boolean {
  const index = Number(key) >>> 0;
  return String(index) === key && index !== 0xffffffff;
}

/** Whether an array carries more than its elements, or is not extensible. */
export function hasNamedProperties(array: readonly unknown[]): boolean {
  if (!Object.isExtensible(array) || Object.getOwnPropertySymbols(array).length > 0) return true;
  const { length } = array;
  if (length > LISTED_LENGTH) {
    return summary(array, true) !== `[ ... ${length} more items, [length]: ${length} ]`;
  }
  // Indices come first, then the array's own length, then what was added; holes have no name.
  return Object.getOwnPropertyNames(array).at(-1) !== 'length';
}

/** The same for a view. */
export function hasNamedViewProperties(view: ArrayBufferView): boolean {
  const length = typedArrayLength(view);
  if (length <= LISTED_LENGTH) return Object.getOwnPropertyNames(view).length > length;
  const text = summary(view, true);
  if (text === undefined) return true;
  if (pristine.has(text)) return false;
  // Whatever it has beside its elements makes its text another one than that of a fresh view of the same memory.
  if (text !== summary(pristineTwin(view), true)) return true;
  if (pristine.size >= MOST_TEXTS) pristine.clear();
  pristine.add(text);
  return false;
}

/** What {@link summary} gives for views without properties of their own. */
const pristine = new Set<string>();
const MOST_TEXTS = 1000;

function pristineTwin(view: ArrayBufferView): object {
  const { buffer, byteOffset } = rangeOf(view);
  const length = typedArrayLength(view);
  const name = typedArrayName(view) as 'Uint8Array';
  const prototype = Object.getPrototypeOf(view) as object | null;
  return Object.setPrototypeOf(new globalThis[name](buffer, byteOffset, length), prototype) as object;
}

/** Node lists the named properties of an array apart from its elements only here. */
function summary(array: object, showHidden: boolean): string | undefined {
  try {
    return inspected(array, showHidden);
  } catch {
    // It read a property that throws, so there is one.
    return undefined;
  }
}

function inspected(array: object, showHidden: boolean): string {
  return inspect(array, {
    maxArrayLength: 0,
    depth: 0,
    showHidden,
    customInspect: false,
    colors: false,
    numericSeparator: false,
    compact: true,
    breakLength: Number.POSITIVE_INFINITY,
  });
}
