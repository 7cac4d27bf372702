/** Failures of the cluster and errors of JavaScript, one into the other. */
import { inspect, types } from 'node:util';
import type { RawFailure } from '#native' with { 'resolution-mode': 'import' };
import {
  classOfCode,
  type HeliostatError,
  isHeliostatError,
  SerializationError,
  WorkerCrashedError,
} from './errors.cjs';
import type { CallSite } from './object-ref.cjs';
import { frames, mapStack, withoutOwn } from './stack.cjs';
import { fromRaw, fromRawSync } from './transfer.cjs';

/** The error that a get of a failed reference throws. */
export async function errorOf(failure: RawFailure, site: CallSite | undefined): Promise<HeliostatError> {
  return build(failure, failure.thrown === undefined ? undefined : (await fromRaw(failure.thrown)).value, site);
}

/** Like {@link errorOf}, for code that cannot wait. */
export function errorOfSync(failure: RawFailure, site: CallSite | undefined): HeliostatError {
  return build(failure, failure.thrown === undefined ? undefined : fromRawSync(failure.thrown), site);
}

function build(failure: RawFailure, thrown: unknown, site: CallSite | undefined): HeliostatError {
  const options: Record<string, unknown> = { ...failure.facts };
  if (failure.hint !== undefined) options['hint'] = failure.hint;
  if (failure.thrown !== undefined) options['cause'] = thrown;
  // What native code says of a cause is its text.
  else if (typeof options['cause'] === 'string') options['cause'] = causeOf(options['cause'], options);
  const type = classOfCode(failure.code);
  const error = new type(failure.message, options);
  if (types.isNativeError(thrown)) {
    const remote = mapStack(thrown.stack ?? '');
    setStack(thrown, withoutOwn(remote));
    setStack(error, `${error.name}: ${error.message}\n${frames(remote)}${place(site)}`);
  } else if (site !== undefined) {
    setStack(error, `${error.name}: ${error.message}${place(site)}`);
  }
  if (!failure.inherited) return error;
  // The dependant did not run: the same class, with what made the first task fail as the cause.
  const cause = failure.thrown === undefined ? error : thrown;
  const outer = new type(`a task that this one depends on failed: ${failure.message}`, { ...options, cause });
  if (site !== undefined) setStack(outer, `${outer.name}: ${outer.message}${place(site)}`);
  return outer;
}

/** The end of a worker is a cause of the class that says so. It happened nowhere in this program. */
function causeOf(message: string, { exitCode, exitSignal }: Record<string, unknown>): Error {
  const ended = exitCode !== undefined || exitSignal !== undefined;
  const facts = { exitCode: exitCode as number | null, exitSignal: exitSignal as string | null };
  const cause = ended ? new WorkerCrashedError(message, facts) : new Error(message);
  setStack(cause, `${cause.name}: ${message}`);
  return cause;
}

function place(site: CallSite | undefined): string {
  const local = site?.stack === undefined ? '' : frames(site.stack);
  return local === '' ? '' : `\n    at remote call\n${local}`;
}

function setStack(error: Error, stack: string): void {
  try {
    Object.defineProperty(error, 'stack', { value: stack, writable: true, configurable: true });
  } catch {
    // A frozen error keeps the stack it has.
  }
}

/** What a task threw, as it goes to its caller. */
export interface Thrown {
  code: string;
  message: string;
  facts: Record<string, string | number>;
  /** What to serialise; left out for errors of this package, which the facts describe. */
  cause?: unknown;
}

/** Describes what a task threw. */
export function describeThrown(thrown: unknown, task: { name: string; attempt: number; nodeId: string }): Thrown {
  if (thrown instanceof SerializationError && thrown.cause === undefined) {
    return { code: 'SERIALIZATION', message: thrown.message, facts: { path: thrown.path, ...hintOf(thrown) } };
  }
  const where = `${task.name}() failed (pid=${process.pid}, node=${task.nodeId.slice(0, 8)})`;
  return {
    code: 'TASK_FAILED',
    message: `${where}: ${headline(thrown)}`,
    facts: { taskName: task.name, pid: process.pid, nodeId: task.nodeId, attempt: task.attempt },
    cause: thrown,
  };
}

function hintOf(error: HeliostatError): Record<string, string> {
  return error.hint === undefined ? {} : { hint: error.hint };
}

/** `Class: message`, whatever was thrown. */
export function headline(thrown: unknown): string {
  try {
    if (types.isNativeError(thrown) || isHeliostatError(thrown)) {
      const error = thrown as Error;
      return `${error.name || error.constructor.name}: ${limit(String(error.message))}`;
    }
    return limit(
      typeof thrown === 'string' ? thrown : inspect(thrown, { depth: 1, breakLength: Number.POSITIVE_INFINITY }),
    );
  } catch {
    return 'a value that cannot be shown';
  }
}

/** An error that can always be sent in place of one that cannot. */
export function substitute(thrown: unknown): Error {
  const error = new Error(headline(thrown));
  const stack = types.isNativeError(thrown) ? thrown.stack : undefined;
  if (typeof stack === 'string') setStack(error, limit(stack));
  return error;
}

function limit(text: string): string {
  return text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}…` : text;
}

const MAX_TEXT = 64 * 1024;
