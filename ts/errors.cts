/**
 * The errors that users see: one class per kind, each with a stable `code`.
 *
 * A brand instead of the prototype chain tells them apart across two copies of the package and across realms.
 */

const BRAND = Symbol.for('heliostat.error');

/** What every error may be made with, besides the fields of its class. */
export interface HeliostatErrorOptions {
  cause?: unknown;
  hint?: string | undefined;
}

/** Base of all errors of this package. `code` is stable, `hint` says what to do next. */
export class HeliostatError extends Error {
  readonly code: string = 'HELIOSTAT';
  declare readonly hint?: string;

  constructor(message: string, options: HeliostatErrorOptions = {}) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined);
    if (options.hint !== undefined) Object.defineProperty(this, 'hint', { value: options.hint, enumerable: true });
  }

  static {
    Object.defineProperty(HeliostatError.prototype, BRAND, { value: true });
  }
}

/** What is known of a task that failed. */
export interface TaskErrorOptions extends HeliostatErrorOptions {
  taskName: string;
  pid: number;
  nodeId: string;
  attempt: number;
}

/** The task threw: `cause` is what it threw. */
export class TaskError extends HeliostatError {
  override readonly code = 'TASK_FAILED';
  declare readonly cause: unknown;
  readonly taskName: string;
  readonly pid: number;
  readonly nodeId: string;
  readonly attempt: number;

  constructor(message: string, options: TaskErrorOptions) {
    super(message, options);
    this.taskName = options.taskName;
    this.pid = options.pid;
    this.nodeId = options.nodeId;
    this.attempt = options.attempt;
  }
}

/** How a worker's process ended. */
export interface WorkerCrashedErrorOptions extends HeliostatErrorOptions {
  exitCode?: number | null;
  exitSignal?: string | null;
}

/** The worker's process ended while it ran the task; the facts come from the parent that waited on it. */
export class WorkerCrashedError extends HeliostatError {
  override readonly code = 'WORKER_CRASHED';
  readonly exitCode: number | null;
  readonly exitSignal: string | null;

  constructor(message: string, options: WorkerCrashedErrorOptions = {}) {
    super(message, options);
    this.exitCode = options.exitCode ?? null;
    this.exitSignal = options.exitSignal ?? null;
  }
}

/** A value cannot be sent; `path` says which part of it. */
export class SerializationError extends HeliostatError {
  override readonly code = 'SERIALIZATION';
  readonly path: string;

  constructor(message: string, options: HeliostatErrorOptions & { path?: string } = {}) {
    super(message, options);
    this.path = options.path ?? '$';
  }
}

/** A lost object that its task did not make again; `reason` says why. */
export class ObjectLostError extends HeliostatError {}
export class ObjectReconstructionFailedError extends ObjectLostError {
  override readonly code = 'OBJECT_RECONSTRUCTION_FAILED';
  readonly reason: string;

  constructor(message: string, options: HeliostatErrorOptions & { reason?: string } = {}) {
    super(message, options);
    this.reason = options.reason ?? 'unknown';
  }
}

export class TaskCancelledError extends HeliostatError {
  override readonly code = 'TASK_CANCELLED';
}
export class TaskTimeoutError extends HeliostatError {
  override readonly code = 'TASK_TIMEOUT';
}
export class GetTimeoutError extends HeliostatError {
  override readonly code = 'GET_TIMEOUT';
}
export class OutOfMemoryError extends HeliostatError {
  override readonly code = 'OUT_OF_MEMORY';
}
export class ActorError extends HeliostatError {}
export class ActorDiedError extends ActorError {
  override readonly code = 'ACTOR_DIED';
}
export class ActorUnavailableError extends ActorError {
  override readonly code = 'ACTOR_UNAVAILABLE';
}
export class ActorNotFoundError extends HeliostatError {
  override readonly code = 'ACTOR_NOT_FOUND';
}
export class ActorAlreadyExistsError extends HeliostatError {
  override readonly code = 'ACTOR_ALREADY_EXISTS';
}
export class PendingCallsLimitError extends HeliostatError {
  override readonly code = 'PENDING_CALLS_LIMIT';
}
export class UnschedulableError extends HeliostatError {
  override readonly code = 'UNSCHEDULABLE';
}
export class NodeDiedError extends HeliostatError {
  override readonly code = 'NODE_DIED';
}
export class OwnerDiedError extends ObjectLostError {
  override readonly code = 'OWNER_DIED';
}
export class ObjectFreedError extends ObjectLostError {
  override readonly code = 'OBJECT_FREED';
}
export class ObjectFetchTimedOutError extends ObjectLostError {
  override readonly code = 'OBJECT_FETCH_TIMED_OUT';
}
export class ObjectCorruptedError extends ObjectLostError {
  override readonly code = 'OBJECT_CORRUPTED';
}
export class ObjectStoreFullError extends HeliostatError {
  override readonly code = 'OBJECT_STORE_FULL';
}
export class OutOfDiskError extends HeliostatError {
  override readonly code = 'OUT_OF_DISK';
}
export class ReadOnlyObjectError extends HeliostatError {
  override readonly code = 'READ_ONLY_OBJECT';
}
export class OutOfBandRefError extends HeliostatError {
  override readonly code = 'OUT_OF_BAND_REF';
}
export class DeadlockError extends HeliostatError {
  override readonly code = 'DEADLOCK';
}
export class RefDisposedError extends HeliostatError {
  override readonly code = 'REF_DISPOSED';
}
export class NameNotFoundError extends HeliostatError {
  override readonly code = 'NAME_NOT_FOUND';
}
export class NameTakenError extends HeliostatError {
  override readonly code = 'NAME_TAKEN';
}
export class StreamReplayError extends HeliostatError {
  override readonly code = 'STREAM_REPLAY';
}
export class RuntimeEnvSetupError extends HeliostatError {
  override readonly code = 'RUNTIME_ENV_SETUP';
}
export class AuthenticationError extends HeliostatError {
  override readonly code = 'AUTHENTICATION';
}
export class TransportError extends HeliostatError {
  override readonly code = 'TRANSPORT';
}
export class AlreadyInitializedError extends HeliostatError {
  override readonly code = 'ALREADY_INITIALIZED';
}
export class NotInitializedError extends HeliostatError {
  override readonly code = 'NOT_INITIALIZED';
}

type ErrorClass = new (message: string, options?: any) => HeliostatError;

/** Every class, by its name. */
export const ERROR_CLASSES: Readonly<Record<string, ErrorClass>> = {
  HeliostatError,
  TaskError,
  WorkerCrashedError,
  SerializationError,
  ObjectLostError,
  ObjectReconstructionFailedError,
  TaskCancelledError,
  TaskTimeoutError,
  GetTimeoutError,
  OutOfMemoryError,
  ActorError,
  ActorDiedError,
  ActorUnavailableError,
  ActorNotFoundError,
  ActorAlreadyExistsError,
  PendingCallsLimitError,
  UnschedulableError,
  NodeDiedError,
  OwnerDiedError,
  ObjectFreedError,
  ObjectFetchTimedOutError,
  ObjectCorruptedError,
  ObjectStoreFullError,
  OutOfDiskError,
  ReadOnlyObjectError,
  OutOfBandRefError,
  DeadlockError,
  RefDisposedError,
  NameNotFoundError,
  NameTakenError,
  StreamReplayError,
  RuntimeEnvSetupError,
  AuthenticationError,
  TransportError,
  AlreadyInitializedError,
  NotInitializedError,
};

// The name is on the prototype: instances keep only what is theirs.
for (const [name, type] of Object.entries(ERROR_CLASSES)) {
  Object.defineProperty(type.prototype, 'name', { value: name, configurable: true, writable: true });
}

/** The class whose instances carry `code`. */
export function classOfCode(code: string): ErrorClass {
  return BY_CODE.get(code) ?? HeliostatError;
}

const BY_CODE = new Map<string, ErrorClass>();
for (const type of Object.values(ERROR_CLASSES)) {
  const code = new type('', { taskName: '', pid: 0, nodeId: '', attempt: 0 }).code;
  if (code !== 'HELIOSTAT') BY_CODE.set(code, type);
}

export type ErrorCode = string;

/**
 * Whether a value is an error of this package (with this code, if one is given). Holds across two copies of the
 * package and across realms, where `instanceof` does not.
 */
export function isHeliostatError(error: unknown, code?: ErrorCode): error is HeliostatError {
  const branded = typeof error === 'object' && error !== null && (error as Record<symbol, unknown>)[BRAND] === true;
  return branded && (code === undefined || (error as HeliostatError).code === code);
}

/** A name of the public API that this version does not have yet. */
export function notYet(what: string): HeliostatError {
  return Object.assign(
    new HeliostatError(`${what} is not in this version of heliostat yet`, {
      hint: 'see CHANGELOG.md for what each version brings',
    }),
    { code: 'NOT_YET' },
  );
}
