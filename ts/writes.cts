/**
 * Writes into data of the store: they stay private to this process, are undone, and are reported where the data was
 * read - as an error of the task, or of the next get in a driver.
 */
import { ReadOnlyObjectError } from './errors.cjs';
import { native } from './native.cjs';
import type { ObjectRef } from './object-ref.cjs';

/** Ids of objects that this driver wrote into and was not told of. */
const violated = new Set<string>();
let warned = false;

/** The error about a write into what `what` names. */
export function readOnly(what: string): ReadOnlyObjectError {
  return new ReadOnlyObjectError(`Cannot assign to read only ${what}; copy it first: array.slice()`, {
    hint: 'what comes out of the store is shared by all its readers: the write was undone, write into a copy',
  });
}

/** Notes what a driver wrote into since the last call. */
export function noteWrites(): void {
  for (const label of native.takeWrites() ?? []) {
    const id = label.startsWith(OBJECT) ? label.slice(OBJECT.length) : undefined;
    if (id !== undefined) violated.add(id);
    if (!warned) {
      warned = true;
      process.emitWarning(
        `${id === undefined ? 'data of the object store' : `ObjectRef(${id})`} was written into; the write was undone`,
        {
          type: 'HeliostatWarning',
          code: 'READ_ONLY_OBJECT',
          detail: 'Copy before you write: array.slice(). The next get of the object throws ReadOnlyObjectError.',
        },
      );
    }
  }
}

const OBJECT = 'object:';

let toldOfCopies = false;

/** Says once that this runtime refuses buffers outside of its own memory, so that reads copy. */
export function noteCopies(): void {
  if (toldOfCopies || !native.takeCopied()) return;
  toldOfCopies = true;
  process.emitWarning('this runtime refuses external buffers: what comes out of the object store is copied', {
    type: 'HeliostatWarning',
    code: 'NO_EXTERNAL_BUFFERS',
  });
}

/** Whether this thread ever got a view that could be written into. */
export const views = { given: false };

/** Throws once for an object that was written into. */
export function takeViolation(ref: ObjectRef<any>): void {
  if (views.given) noteWrites();
  if (violated.size > 0 && violated.delete(ref.id)) throw readOnly(`memory of ${ref}`);
}

/** What a task wrote into, by the names of its arguments; empty when nothing. */
export function writesOfTask(): string[] {
  return (native.takeWrites() ?? []).map((label) => {
    if (label.startsWith(OBJECT)) return `memory of ObjectRef(${label.slice(OBJECT.length)})`;
    if (label.startsWith(ARGUMENT)) return `argument ${label.slice(ARGUMENT.length)}`;
    return 'memory of an argument';
  });
}

const ARGUMENT = 'argument:';
