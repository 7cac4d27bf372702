/** After which errors a task is tried again. */
import { types } from 'node:util';
import { ERROR_CLASSES, isHeliostatError } from '../errors.cjs';

export type ErrorClass = new (...args: any[]) => Error;

/** Whether what a task threw is one of these classes' errors; of any, when there is no list. */
export function isOneOf(thrown: unknown, classes: readonly ErrorClass[] | undefined): boolean {
  return classes === undefined || classes.some((type) => isA(thrown, type));
}

function isA(thrown: unknown, type: ErrorClass): boolean {
  if (thrown instanceof type) return true;
  // Errors of other realms, and of another copy of this package, are known by the names of their classes.
  const isKnown =
    (types.isNativeError(thrown) && (globalThis as Record<string, unknown>)[type.name] === type) ||
    (isHeliostatError(thrown) && ERROR_CLASSES[type.name] === type);
  if (!isKnown) return false;
  for (let at: object | null = Object.getPrototypeOf(thrown); at !== null; at = Object.getPrototypeOf(at)) {
    if ((Object.getOwnPropertyDescriptor(at, 'constructor')?.value as ErrorClass | undefined)?.name === type.name)
      return true;
  }
  return false;
}
