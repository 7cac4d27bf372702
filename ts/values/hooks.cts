/**
 * What the runtime lends to the codec, so that the codec knows neither references nor the package's error classes.
 */

import type { OwnClass } from './own-classes.cjs';

/** Set once by the runtime through {@link setHooks}. */
export interface Hooks {
  /** ObjectRef or actor handle: written as an index into `refs`. */
  isRef(value: object): boolean;
  /** Why an object of the package itself cannot go; undefined for all others. */
  refusal?(value: object): { reason: string; hint: string } | undefined;
  /** The view of a draft, if `value` is one: encoded as an out-of-band buffer and listed in `seals`. */
  isDraft(value: object): ArrayBufferView | undefined;
  /** Builds the public SerializationError. */
  serializationError(path: string, reason: string, hint: string): Error;
  /** The name that user code imports the package by; always resolved through {@link Hooks.resolveSelf}. */
  packageName: string;
  /** The package's own exports object in this process. */
  resolveSelf(): unknown;
  /** The package's error classes by name, revived with their fields. */
  errorClasses(): Record<string, new (...args: any[]) => Error>;
  /** Loads the module of one of the package's own classes that a value holds. */
  loadOwnClass?(name: string): OwnClass | undefined;
}

/** Stands in until the runtime has set its own, and in tests of the codec alone. */
const standalone: Hooks = {
  isRef: () => false,
  isDraft: () => undefined,
  serializationError(path, reason, hint) {
    const error = new TypeError(`cannot send ${path}: ${reason}${hint === '' ? '' : `. ${hint}`}`);
    return Object.assign(error, { name: 'SerializationError', code: 'SERIALIZATION', path, reason, hint });
  },
  packageName: 'heliostat',
  resolveSelf: () => ({}),
  errorClasses: () => ({}),
};

let current = standalone;

/** Replaces the hooks for this thread. */
export function setHooks(hooks: Hooks): void {
  current = hooks;
}

/** The hooks in force. */
export function hooks(): Hooks {
  return current;
}
