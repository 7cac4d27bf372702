/** Failures of tasks whose results nobody read. */
import type { RawFailure } from '#native' with { 'resolution-mode': 'import' };
import { errorOfSync } from './failures.cjs';
import { native } from './native.cjs';
import { setUnreadHandler } from './runtime.cjs';

const EVENT = 'heliostat:unobserved';

/** Emits the failures, or prints a line for each. With `all` also those of references that the program still has. */
function report(all: boolean): void {
  const taken = native.takeUnread(all) ?? [];
  for (let index = 0; index < taken.length; index += 2) {
    const [name, failure] = [taken[index] as string, taken[index + 1] as RawFailure];
    if (process.listenerCount(EVENT) > 0) (process as NodeJS.EventEmitter).emit(EVENT, revive(failure), name);
    else
      process.stderr.write(
        `heliostat: task ${line(name)}() failed and nobody read its result: ${line(failure.message)}\n`,
      );
  }
}

function revive(failure: RawFailure): Error {
  try {
    return errorOfSync(failure, undefined);
  } catch {
    // What was thrown needs imports that take a turn: its text is in the message.
    const { thrown: _, ...rest } = failure;
    return errorOfSync(rest, undefined);
  }
}

/** The first line of a text, which somebody else's program may have made, without what a terminal takes for an order. */
function line(text: string): string {
  return (text.split('\n', 1)[0] ?? '').replace(/[\u0000-\u001f\u007f-\u009f]/g, '?');
}

setUnreadHandler(report);
