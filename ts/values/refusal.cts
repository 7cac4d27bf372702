import { types } from 'node:util';
import { hooks } from './hooks.cjs';

/** Why a place in a value cannot be sent. */
export interface Finding {
  path: string;
  reason: string;
  hint: string;
}

/** Thrown inside the codec; turned into the public SerializationError at its border. */
export class Refusal extends Error {
  readonly reason: string;
  readonly hint: string;
  /** Filled in by the writer, which knows where it stands. */
  path: string | undefined;

  constructor(reason: string, hint = '', options?: { cause?: unknown }) {
    super(reason, options);
    this.reason = reason;
    this.hint = hint;
  }
}

/** Bytes that no writer of this version makes. */
export class MalformedHeader extends Error {}

/** V8's words when the stack is used up. */
export function isStackOverflow(error: unknown): boolean {
  return (
    types.isNativeError(error) && error.name === 'RangeError' && error.message === 'Maximum call stack size exceeded'
  );
}

/** The public error for a failure inside the codec; other errors (a user's own) pass unchanged. */
export function publicError(error: unknown, path: string): unknown {
  if (error instanceof Refusal) {
    const made = hooks().serializationError(error.path ?? path, error.reason, error.hint);
    if (error.cause !== undefined) {
      Object.defineProperty(made, 'cause', { value: error.cause, configurable: true, writable: true });
    }
    return made;
  }
  if (error instanceof MalformedHeader) {
    return hooks().serializationError(path, `the bytes are not a value of this version (${error.message})`, '');
  }
  if (isStackOverflow(error)) {
    return hooks().serializationError(
      path,
      'is nested too deeply for the stack',
      'Flatten it: keep long chains in an array',
    );
  }
  return error;
}
