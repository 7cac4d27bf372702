/** Telling an array's own named properties from its elements without listing the elements. */
import { inspect } from 'node:util';

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
  const names = Object.getOwnPropertyNames(array);
  if (names.length === length + 1) return false;
  return names.length > length + 1 || names.some((name) => !isIndex(name) && name !== 'length');
}

/** The same for a view; `name` is what it calls itself. */
export function hasNamedViewProperties(view: ArrayBufferView & { length?: number }, name: string): boolean {
  const length = view.length ?? 0;
  if (length > LISTED_LENGTH && name !== 'Buffer') {
    return summary(view, false) !== `${name}(${length}) [ ... ${length} more items ]`;
  }
  return length <= LISTED_LENGTH && Object.getOwnPropertyNames(view).length > length;
}

/** Node lists the named properties of an array apart from its elements only here. */
function summary(array: object, showHidden: boolean): string {
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
