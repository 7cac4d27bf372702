/** The types of the public contract: options, results, and how references are typed through calls. */
/// <reference lib="esnext.disposable" />
/// <reference types="node" />
import type { ObjectRef } from './object-ref.cjs';
import type { ObjectRefGenerator } from './streams.cjs';

// ---- lifecycle

export interface InitOptions {
  /** Omit: start an embedded one-node cluster inside this process, which opens no port. 'auto': join the node daemon running on this machine (`heliostat start`). 'host:port':
   *  join that cluster's head. 'unix:/path': what an embedded context reports as its address. Also read from HELIOSTAT_ADDRESS. */
  address?: string | undefined;
  /** Cluster token; also HELIOSTAT_TOKEN or the token file that `heliostat start --head` wrote. */
  token?: string | undefined;
  numCpus?: number | undefined; // default: cores of this machine, or of its cgroup
  numGpus?: number | undefined;
  resources?: Record<string, number> | undefined; // custom resources, fractional allowed
  labels?: Record<string, string> | undefined;
  objectStoreMemory?: number | undefined; // default: 30 % of memory (of the cgroup limit where there is one)
  /** Values whose serialised size is at most this stay inline, in the owner's in-process store. Default 100 * 1024. */
  inlineLimit?: number | undefined;
  objectSpilling?: SpillOptions | false | undefined;
  putTimeoutMs?: number | undefined; // how long a put into a full store waits while others make room; default 30,000
  namespace?: string | undefined;
  logToDriver?: boolean | undefined; // default true: worker lines arrive as `(name pid=123) text`
  dashboard?: boolean | { host?: string | undefined; port?: number | undefined } | undefined; // default: off when embedded; on for `heliostat start --head` (127.0.0.1:8265 or the next free port)
  runtimeEnv?: RuntimeEnv | undefined;
  tempDir?: string | undefined;
  /** A second init() with equal options returns the running context (hot reload), with others throws AlreadyInitializedError naming the option that differs; true returns the context in any case.
   *  In a worker_thread or inside a task, init() without options joins the process's runtime; shutdown() in a thread drops that thread's references only. */
  ignoreReinit?: boolean | undefined;
}
export interface SpillOptions {
  /** file paths or URIs, several are striped: ['/ssd1/spill', '/ssd2/spill'] or ['s3://bucket/a', 's3://bucket/b']; also gs://, az://. */
  uris?: string[] | undefined; // default: the session's directory under tempDir
  minSpillingSize?: number | undefined; // default 100 MiB: small objects are fused until a batch is this big
  bufferSize?: number | undefined; // default 100 MiB for remote storage
  maxIoWorkers?: number | undefined; // default 4
  threshold?: number | undefined; // default 0.8 of the store
  /** Extra settings of the storage client, for example { endpoint, region, access_key_id, allow_http }. */
  storage?: Record<string, string> | undefined;
}
/**
 * What workers are started with. A task runs only in a worker that was started for the same environment. That of `init()` is
 * the default of all tasks; a task's goes over it (variables one by one, the directory and the flags as a whole), and the
 * tasks that a task submits inherit its own. What cannot be set up rejects with {@link RuntimeEnvSetupError}.
 *
 * @example
 * await init({ runtimeEnv: { workingDir: './tasks', envVars: { LOG_LEVEL: 'debug' } } });
 * const train = remote((rows: number) => rows * 2, { runtimeEnv: { execArgv: ['--max-old-space-size=8192'] } });
 */
export interface RuntimeEnv {
  /**
   * A directory of this machine. It is packed at `init()`, or at the first `.remote()`, and unpacked once for the node: its copy is
   * the current directory of the workers, and packages in it are found first. Patterns of `.heliostatignore` and
   * `.gitignore` stay out, as do `.git` and `node_modules` unless a pattern brings them back; at most 256 MiB.
   */
  workingDir?: string | undefined;
  /** Variables of the workers' environment, besides those of the driver. */
  envVars?: Record<string, string> | undefined;
  /** Flags of Node for the workers, such as `--max-old-space-size=8192`, `--inspect-brk` or `--import=./hooks.mjs`. */
  execArgv?: string[] | undefined;
}

export interface Context extends AsyncDisposable {
  readonly address: string; // what other processes pass as `address`
  readonly dashboardUrl: string | null;
  readonly nodeId: string;
  readonly jobId: string;
  readonly namespace: string;
}

// ---- objects

/** timeoutMs: 0 means now or GetTimeoutError. An aborted get or wait rejects with signal.reason. */
export interface GetOptions {
  timeoutMs?: number | undefined;
  signal?: AbortSignal | undefined;
}
/** A named object is owned by the cluster, not by this process; a taken name throws NameTakenError. ttlMs: the name goes after that time, other references keep the object. */
export interface PutOptions {
  name?: string | undefined;
  ttlMs?: number | undefined;
}
export type ValueOf<R> = R extends ObjectRef<infer T> ? T : never;
export type Values<R extends readonly ObjectRef<any>[]> = {
  -readonly [K in keyof R]: R[K] extends ObjectRef<infer T> ? T : never;
};
export interface WaitOptions {
  numReturns?: number | undefined;
  timeoutMs?: number | undefined;
  fetchLocal?: boolean | undefined;
  signal?: AbortSignal | undefined;
}
export type TypedArray =
  | Int8Array
  | Uint8Array
  | Uint8ClampedArray
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | Float32Array
  | Float64Array
  | BigInt64Array
  | BigUint64Array; // and Float16Array where the runtime has it
/** Zeroed memory in the shared store to fill in place: no copy at all on put. RangeError above the platform's limit for one buffer (4 GiB). seal() makes it immutable and detaches `view`;
 *  a draft that is dropped unsealed gives its memory back. A Draft may also stand anywhere in a value that is put, returned or passed: it is sealed with it, its bytes are not copied, readers see
 *  the typed array. */
export interface Draft<A extends TypedArray> extends Disposable {
  readonly view: A;
  seal(): ObjectRef<A>;
}

// ---- tasks

/** A top-level reference arrives dereferenced, a nested one as a reference: a parameter of type ObjectRef is therefore a type error. */
export type Arg<T> = 0 extends 1 & T ? any : ObjectRef<T> | (T extends ObjectRef<any> ? never : T);
export type Args<A extends readonly unknown[]> = { [K in keyof A]: Arg<A[K]> };
export interface SchedulingOptions {
  numCpus?: number | undefined;
  numGpus?: number | undefined;
  memory?: number | undefined;
  resources?: Record<string, number> | undefined;
  schedulingStrategy?:
    | 'default'
    | 'spread'
    | { nodeId: string; soft?: boolean | undefined }
    | { labels: Record<string, string> }
    | undefined;
  runtimeEnv?: RuntimeEnv | undefined;
}
/** A task takes 1 CPU unless told. timeoutMs counts each attempt's running time, not the queue. A pending get or wait keeps the process alive; an unfinished task alone does not: it is cancelled at
 *  exit. A failed task whose last reference goes unread prints one line, or emits 'heliostat:unobserved' on process where someone listens. */
export interface TaskOptions extends SchedulingOptions {
  name?: string | undefined;
  /** A call streams when the function is a generator function (down-levelled ones are recognised), or when this says true; false forces one value. A plain function that returns an iterator
   *  without it fails with SerializationError. Holds for actor methods too. */
  streaming?: boolean | undefined;
  maxRetries?: number | undefined; // worker or node failures, and retryExceptions; default 3, -1 for ever
  /** Errors after which the task is tried again: any (true), or those of these classes and of classes below them. Judged in the worker; each retry counts against maxRetries. Timeouts are
   *  among them when this is true or lists TaskTimeoutError. */
  retryExceptions?: boolean | (new (...args: any[]) => Error)[] | undefined; // default false
  /** Milliseconds that each attempt may run: then the context's signal aborts, and code that goes on for another second ends with its worker. */
  timeoutMs?: number | undefined; // TaskTimeoutError
  signal?: AbortSignal | undefined; // aborting cancels the task
  /** Items that a streaming call may have made and that next() did not return yet; at least 1, and above 1,000,000 as that. Default 16. */
  bufferedItems?: number | undefined;
}
export interface RemoteFunction<A extends unknown[], R> {
  remote(...args: Args<A>): Returned<R>;
  /** numReturns n always gives an array of n references; a result of another length fails all of them. Options merge over earlier ones. */
  options(options: TaskOptions & { numReturns: number }): { remote(...args: Args<A>): Split<Awaited<R>> };
  options(options: TaskOptions): RemoteFunction<A, R>;
}
export type Returned<R> = 0 extends 1 & R
  ? ObjectRef<any>
  : [R] extends [never]
    ? ObjectRef<never>
    : [R] extends [AsyncIterableIterator<infer T> | IterableIterator<infer T>]
      ? ObjectRefGenerator<T>
      : ObjectRef<Sealed<Awaited<R>>>;
export type Split<R> = 0 extends 1 & R
  ? ObjectRef<any>[]
  : R extends readonly unknown[]
    ? number extends R['length']
      ? ObjectRef<R[number]>[]
      : { -readonly [K in keyof R]: ObjectRef<R[K]> }
    : ObjectRef<any>[];
export type Sealed<T> = 0 extends 1 & T
  ? T
  : T extends Draft<infer A>
    ? A
    : [Extract<T[keyof T], Draft<any>>] extends [never]
      ? T
      : { [K in keyof T]: T[K] extends Draft<infer A> ? A : T[K] };

// ---- actors

/** An actor reserves no CPU unless told. maxConcurrency is 1 unless told, for async methods too. An unnamed actor ends, after its pending calls, when its last handle
 *  is disposed or collected. A failing constructor makes every call fail with ActorDiedError whose cause is the constructor's error. maxTaskRetries is the default of its calls'
 *  maxRetries. ActorAlreadyExistsError, PendingCallsLimitError and UnschedulableError come from remote() or from the first get of what it returned; in an embedded cluster a request that
 *  the node can never meet fails at once. */
export interface ActorOptions extends SchedulingOptions {
  name?: string | undefined;
  namespace?: string | undefined;
  getIfExists?: boolean | undefined;
  lifetime?: 'detached' | undefined;
  maxRestarts?: number | undefined;
  maxTaskRetries?: number | undefined;
  maxConcurrency?: number | undefined;
  maxPendingCalls?: number | undefined;
}
export interface RemoteClass<C extends new (...args: any[]) => object> {
  remote(...args: Args<ConstructorParameters<C>>): ActorHandle<InstanceType<C>>;
  options(options: ActorOptions): RemoteClass<C>;
}
export interface AnyActorHandle extends Disposable {
  readonly $actorId: string;
}
/** Only string-named methods (inherited ones too) can be called. `then`, `toJSON` and symbols are never methods: remote(Class) refuses a class with such a method. Reading any other name throws TypeError
 *  listing the methods. Fields and getters are not reachable. */
export type ActorHandle<I> = AnyActorHandle & {
  readonly [K in Exclude<keyof I & string, 'then' | 'toJSON' | '$actorId'> as I[K] extends (...args: any[]) => any
    ? K
    : never]: I[K] extends (...args: infer A) => infer R ? RemoteFunction<A, R> : never;
};

// ---- inside a task; serialisation

export interface RuntimeContext {
  readonly jobId: string;
  readonly nodeId: string;
  readonly workerId: string;
  readonly taskId: string | null;
  readonly taskName: string | null;
  readonly actorId: string | null;
  readonly attempt: number /* from 0 */;
  readonly wasActorRestarted: boolean;
  readonly assignedResources: Record<string, number>;
  readonly signal: AbortSignal;
}
export interface Serializer<T, D> {
  serialize(value: T): D;
  deserialize(data: D): T;
}

// ---- state

/** Resource keys are CPU, GPU, memory and the custom names. objectStore.used: bytes of live objects and open drafts, rounded to allocation units; leased but empty space does not count. */
export interface NodeInfo {
  nodeId: string;
  address: string;
  alive: boolean;
  resources: Record<string, number>;
  labels: Record<string, string>;
  objectStore: { capacity: number; used: number; spilled: number };
}
export interface ObjectState {
  id: string;
  state: 'inline' | 'memory' | 'spilled' | 'pending' | 'lost';
  byteLength: number;
  ownerPid: number;
  nodeId: string;
  kind: 'local' | 'borrowed' | 'argument' | 'captured' | 'pinned';
  callSite: string;
  uri?: string | undefined;
}
export interface TaskState {
  taskId: string;
  name: string;
  state: 'pending' | 'waiting' | 'scheduled' | 'running' | 'finished' | 'failed' | 'cancelled';
  reason?: string | undefined;
  pid?: number | undefined;
  attempt: number;
}
export interface ActorState {
  actorId: string;
  name: string | null;
  namespace: string;
  state: 'pending' | 'alive' | 'restarting' | 'dead';
  pid?: number | undefined;
  restarts: number;
}
export interface WorkerState {
  workerId: string;
  pid: number;
  nodeId: string;
  state: 'idle' | 'busy' | 'actor' | 'starting';
}
