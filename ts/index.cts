/**
 * Heliostat: Ray's remote objects for TypeScript. `put` a value once, hand its reference to tasks on any worker, read it
 * with zero copies.
 *
 * @packageDocumentation
 */

import { setImmediate } from './clock.cjs';
import './unread.cjs';
import { Remote } from './remote.cjs';
import { isLeaving, leave, start, startAfterLeaving } from './runtime.cjs';
import type { Context, InitOptions } from './types.cjs';
import { listScripts, warmUp } from './values/index.cjs';

/** Starts the runtime, or joins a running one. */
export async function init(options?: InitOptions): Promise<Context> {
  const context = isLeaving() ? await startAfterLeaving(options) : start(options);
  // What sending the first function costs once: most of it while the first workers start, which takes longer, the rest
  // while the program does something else.
  listScripts();
  setImmediate(warmUp).unref();
  return context;
}

/** Leaves the cluster; an embedded one ends with its workers and files. */
export function shutdown(): Promise<void> {
  return leave();
}

export { exitActor, getActor, kill } from './actors.cjs';
export { cancel } from './cancel.cjs';
export { getRuntimeContext } from './context.cjs';
export {
  ActorAlreadyExistsError,
  ActorDiedError,
  ActorError,
  ActorNotFoundError,
  ActorUnavailableError,
  AlreadyInitializedError,
  AuthenticationError,
  DeadlockError,
  type ErrorCode,
  GetTimeoutError,
  HeliostatError,
  isHeliostatError,
  NameNotFoundError,
  NameTakenError,
  NodeDiedError,
  NotInitializedError,
  ObjectCorruptedError,
  ObjectFetchTimedOutError,
  ObjectFreedError,
  ObjectLostError,
  ObjectReconstructionFailedError,
  ObjectStoreFullError,
  OutOfBandRefError,
  OutOfDiskError,
  OutOfMemoryError,
  OwnerDiedError,
  PendingCallsLimitError,
  ReadOnlyObjectError,
  RefDisposedError,
  RuntimeEnvSetupError,
  SerializationError,
  StreamReplayError,
  TaskCancelledError,
  TaskError,
  TaskTimeoutError,
  TransportError,
  UnschedulableError,
  WorkerCrashedError,
} from './errors.cjs';
export { ObjectRef } from './object-ref.cjs';
export {
  allocate,
  asCompleted,
  explain,
  free,
  get,
  getNamed,
  getRange,
  getSync,
  locate,
  prefetch,
  put,
  putAsync,
  release,
  wait,
} from './objects.cjs';
export { remote } from './remote.cjs';

// Not for users: where values that contain remote functions find their class in every process. A name that is computed
// is not taken for an export of the module by `import`.
const hidden = '$Remote';
Object.defineProperty(exports, hidden, { value: Remote });
// The class of `heliostat/tensor` is one and the same everywhere, too; its module is loaded where it is used.
const hiddenTensor = '$Tensor';
Object.defineProperty(exports, hiddenTensor, {
  get: () => (require('./tensor.cjs') as typeof import('./tensor.cjs')).Tensor,
});

export { isInitialized } from './runtime.cjs';
export { availableResources, clusterResources, nodes, state, timeline } from './state.cjs';
export { ObjectRefGenerator } from './streams.cjs';
export type {
  ActorHandle,
  ActorOptions,
  ActorState,
  AnyActorHandle,
  Arg,
  Args,
  Context,
  Draft,
  GetOptions,
  InitOptions,
  NodeInfo,
  ObjectState,
  PutOptions,
  RemoteClass,
  RemoteFunction,
  Returned,
  RuntimeContext,
  RuntimeEnv,
  SchedulingOptions,
  Sealed,
  SpillOptions,
  Split,
  TaskOptions,
  TaskState,
  TypedArray,
  ValueOf,
  Values,
  WaitOptions,
  WorkerState,
} from './types.cjs';
export type { Serializer } from './values/index.cjs';
export { deregisterSerializer, inspectSerializable, registerSerializer } from './values/index.cjs';
