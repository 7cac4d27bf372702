/* The raw functions of the addon; the rest below is generated. Internal: users import the package itself. */

/** A serialised value read from the cluster; each of `refs` is a new handle. */
/** Many of them come as a typed array. */
export type Handles = number[] | Uint32Array
export interface RawValue { header: Uint8Array; buffers: ArrayBuffer[]; refs: Handles }
/** Why a reference has no value. */
export interface RawFailure {
  code: string; message: string; hint?: string; inherited: boolean
  facts: Record<string, string | number | null>; thrown?: RawValue
}
/** A task to run. */
export interface RawTask {
  execution: number; taskId: string; attempt: number; jobId: string; name: string; function: number
  args: RawValue; positions: number[]; values: RawValue[]; returns: number; timed: boolean; retriesErrors: boolean; streams: boolean
}
/** The out-of-band buffers of a value, or the number of the draft that is its only one. */
export type Buffers = ArrayBufferView[] | number
export declare function put(header: Uint8Array, headerLength: number, buffers: Buffers, refs: number[]): number
/** A negative time to live is for good. */
export declare function putNamed(name: string, ttlMs: number, header: Uint8Array, headerLength: number, buffers: Buffers, refs: number[]): number
export declare function findNamed(name: string): number
export declare function setNamespace(name: string): void
/** Of a value that is spilled: waits for it, or throws SPILLED. */
export declare function read(handle: number, mayWait: boolean): RawValue | RawFailure | undefined
/** Memory that small values pass through, on this thread; undefined where there can be none. */
export declare function scratch(): Uint8Array | undefined
/** Stores a value whose header is in the scratch memory, and which is nothing else. */
export declare function putSmall(headerLength: number): number
/** The length of a small value without references, written into the scratch memory; -1 for every other state. */
export declare function readSmall(handle: number): number
/** A wrapper disposes of its handle; `collected` follows. */
/** Returns whether others still keep the object. */
export declare function dispose(handle: number): boolean
/** The collector found the wrapper of a handle dead. */
export declare function collected(handle: number): boolean
export declare function release(handle: number): void
export declare function free(handle: number): void
/** The program learned what became of these references. */
export declare function observe(handles: number[]): void
/** Failed tasks whose last reference went unread: [name, failure, ...]; with `all` those with references as well. */
export declare function takeUnread(all: boolean): (string | RawFailure)[] | undefined
export declare function refId(handle: number): string
/** -1 pending, 0 inline, 1 in the store, 2 failed. */
export declare function refState(handle: number): number
/** The same, or 3 spilled, with the bytes of the serialised value. */
export declare function refPlace(handle: number): [state: number, byteLength: number]
/** Where a spilled value is kept. */
export declare function refUri(handle: number): string | undefined
/** Bytes of values that this process keeps itself. */
export declare function inlineBytes(): number
/** Brings back what is spilled and keeps all until `endWait`: a number for it, or -1 when nothing is spilled. */
export declare function restore(handles: number[]): number
/** How long calls of this thread that need room in the store wait for it; `ticket` names a place in line. */
export declare function setPatience(millis: number, ticket: number, last: boolean, spilling: boolean): void
export declare function wait(handles: number[] | Uint32Array, needed: number, failFast: boolean): number
/** The number of a wait, or the places of the first `count` that are ready when there are so many; `null`: one is in the list twice. */
export declare function waitSome(handles: Uint32Array, count: number): number | Handles | null
/** The places in the list of the first `count` references that have a value or failed. */
export declare function readyPlaces(handles: Uint32Array, count: number): Handles
export declare function endWait(wait: number): void
/** 0: over, 1: the time ran out, 2: the task that waits was aborted. */
export declare function block(handles: number[], timeoutMs: number): 0 | 1 | 2
/** Events: the number of a wait that is over, -1 a task, -2 others wait for room in the store, -3 the node ended,
 *  -4 a run was aborted, -5 a failure went unread. */
export declare function openPort(callback: (events: number[]) => void): number
/** Gives this thread's waits up; how many threads of the process still have a port. */
export declare function closePort(): number
export declare function holdLoop(hold: boolean): void
export declare function defineFunction(hash: Uint8Array, header: Uint8Array, headerLength: number, buffers: Buffers, refs: number[]): void
/** Holds a function once more; false when it has to be defined. */
export declare function useFunction(hash: Uint8Array): boolean
export declare function dropFunction(hash: Uint8Array): void
/**
 * Prepares a call: flags are 1 for tried again after errors, 2 after it ran too long; env is what prepareEnv gave, empty for
 * the inherited environment; `stream` items may be made before they are taken, 0: it gives none.
 */
export declare function prepareCall(
  name: string, hash: Uint8Array, needs: (string | number)[], returns: number, retries: number, timeoutMs: number, flags: number,
  env: string, stream: number): number
export declare function dropCall(call: number): void
export declare function submit(
  call: number, header: Uint8Array, headerLength: number, buffers: Buffers, refs: number[],
  positions: number[], byRef: number[], parent: number, cancelled: boolean): number[]
/** Submits a call with small arguments, whose header is in the scratch memory; the handle of its one result. */
export declare function submitSmall(call: number, parent: number, headerLength: number, count: number): number
/** Takes the next task into the scratch memory; -1 when there is none, -2 when nextTask has to. */
export declare function nextSmall(): number
/** Ends a task with a small result, whose header is in the scratch memory. */
export declare function finishSmall(execution: number, headerLength: number): void
export declare function taskInfo(execution: number): { taskId: string; jobId: string; name: string; attempt: number }
export declare function cancel(handle: number, force: boolean, recursive: boolean): void
/** Cancels tasks of this process by the ids of objects that they make. */
export declare function cancelTasks(ids: string[]): void
/** Whether the tasks of this process that make these objects have not ended. */
export declare function unfinished(ids: string[]): boolean[]
export declare function beginTask(execution: number): void
/** Runs that were aborted, and whether (1) they took too long: [execution, late, ...]. */
export declare function takeAborted(): number[]
export declare function overdueTask(execution: number): void
/** `null` for a task that ended already, since its arguments are gone. */
export declare function nextTask(): RawTask | undefined
/** Functions that need not be kept any more. */
export declare function takeForgotten(): number[] | undefined
export declare function functionValue(fn: number): RawValue | undefined
export declare function addResult(execution: number, header: Uint8Array, headerLength: number, buffers: Buffers, refs: number[]): void
export declare function addFailure(
  execution: number, code: string, message: string, facts: (string | number)[],
  header: Uint8Array, headerLength: number, buffers: Buffers, refs: number[]): void
export declare function dropResults(execution: number): void
/** Nanoseconds below 0: since the task was taken. */
export declare function finishTask(execution: number, nanos: number, again: boolean): void
/** The handle of a stream's next item; -1 when there are no more, -2 when it has not arrived. A stream is named by the handle that its call gave. */
export declare function nextItem(stream: number): number
/** The number of a wait for the next item or the end; -1 when there is nothing to wait for. */
export declare function waitItem(stream: number): number
/** Takes no more items, and cancels the task that makes them. */
export declare function dropStream(stream: number): void
/** Whether a running task may make its next item: 0 it may, 1 not yet, 2 nobody wants it. */
export declare function room(execution: number): 0 | 1 | 2
/** The number of a wait for that; -1 when there is nothing to wait for. */
export declare function waitRoom(execution: number): number
/** Blocks the thread until it may, or nobody wants it. */
export declare function blockRoom(execution: number): 0 | 2
/** Hands the next item of a running task over; then as `room`. */
export declare function pushItem(execution: number, header: Uint8Array, headerLength: number, buffers: Buffers, refs: number[]): 0 | 1 | 2
/** The same for a small item whose header is in the scratch memory. */
export declare function pushSmall(execution: number, headerLength: number): 0 | 1 | 2
/** Sets what this worker's lines that name a task begin with. */
export declare function setMarker(marker: string): void
export declare function takeWrites(): string[] | undefined
export declare function setTransfer(transfer: (this: ArrayBuffer) => ArrayBuffer): void
/** Bytes of the store's buffers that this thread holds, or held and did not sweep yet. */
export declare function heldBytes(): number
export declare function sweepViews(): number
/** Whether buffers outside of the engine's memory are taken for refused, as some runtimes do; for tests. */
export declare function refuseViews(refuse: boolean): void
/** Whether data was copied since the last call because such buffers are refused. */
export declare function takeCopied(): boolean
/** This process's own objects in the store, the largest first, at most so many: `[handle, bytes, ...]`. */
export declare function storedHandles(most: number): number[]
/** Answers the node's question where objects were made. */
export declare function tellSites(request: number, sites: string[]): void
export declare function trackRef(handle: number, ref: object): void
export declare function untrackRef(handle: number): void
/** Handles of tracked references that were collected; they are untracked. */
export declare function sweepRefs(): number[]
/** Zeroed memory of the store to fill in place. */
export declare function allocate(length: number): [draft: number, buffer: ArrayBuffer]
export declare function detachDraft(buffer: ArrayBuffer): void
export declare function dropDraft(draft: number, buffer: ArrayBuffer): void
export declare function detachView(buffer: ArrayBuffer): boolean


/**
 * Which binding artifact the generated loader actually loaded: `'native'` for
 * a native addon, otherwise the `platformArchABI` of the WASI flavor. Every
 * flavor napi-rs can build is listed, because `NAPI_RS_NATIVE_LIBRARY_PATH`
 * can point the loader at a WASI artifact this package does not build itself.
 */
export declare const __napiBindingTarget: 'native' | 'wasm32-wasi' | 'wasm32-wasip1'

/** The membership of this process, if a thread of it has one. */
export declare function currentSession(): Session | null

/**
 * Ends the membership of a process that exits, without waiting for others: kills the workers of an embedded node and
 * removes its files.
 */
export declare function exitNode(): void

/** Sets the environment of the tasks that ask for none. */
export declare function inheritEnv(env: RawEnv): void

/** Joins the node behind a Unix socket: as a driver, or with the token of a worker, whose process ends with its node. */
export declare function joinNode(path: string, workerToken?: string | undefined | null): Session

/**
 * Leaves the node, and ends it when this process started it. The thread's port must be closed before. Unless it is
 * `forced`, the membership goes on as long as other threads of the process have ports.
 */
export declare function leaveNode(forced: boolean): Promise<void>

/** The state of the node, as JSON. */
export declare function nodeState(): string

/** Makes an environment known, packs its directory, and returns its id for `prepareCall`. */
export declare function prepareEnv(env: RawEnv): string

/** What a program asks for; what is left out is inherited. */
export interface RawEnv {
  /** A directory to pack, as an absolute path. */
  workingDir?: string
  /** Variables of the environment. */
  envVars?: Record<string, string>
  /** Flags of Node. */
  execArgv?: Array<string>
}

/** Bytes of a stored value, from memory or from storage. */
export declare function readPart(handle: number, start: number, length: number): Promise<Uint8Array>

/** The membership of this process. */
export interface Session {
  /** What other processes of this machine join by. */
  address: string
  /** 32 hexadecimal digits. */
  nodeId: string
  /** 32 hexadecimal digits. */
  jobId: string
  /** 32 hexadecimal digits. */
  workerId: string
  /** Bytes up to which values stay out of the store. */
  inlineLimit: number
  /** Bytes of the store. */
  capacity: number
  /** Milliseconds that a put waits for room. */
  putTimeout: number
}

/** How objects are spilled; what is left out has its default. */
export interface SpillSettings {
  /** Directories or URIs. */
  uris?: Array<string>
  /** Bytes up to which objects are fused. */
  minSpillingSize?: number
  /** Bytes of a part of a remote upload. */
  bufferSize?: number
  /** Threads for each target. */
  maxIoWorkers?: number
  /** Part of the store. */
  threshold?: number
  /** Settings of the storage clients. */
  storage?: Record<string, string>
}

/** Starts a node in this process and joins it as its driver; another thread's, which was faster, is shared. */
export declare function startNode(options: StartOptions): Session

/** What an embedded node is started with. */
export interface StartOptions {
  /** Where the sessions' directory goes. */
  tempDir: string
  /** Amounts by name, `CPU` included. */
  resources: Record<string, number>
  /** Labels of the node. */
  labels: Record<string, string>
  /** Bytes of the store. */
  objectStoreMemory: number
  /** Bytes up to which values stay out of the store. */
  inlineLimit: number
  /** The worker's executable. */
  program: string
  /** Its arguments. */
  args: Array<string>
  /** Further ones, behind those of a runtime environment. */
  entry: Array<string>
  /** Whether workers are started ahead of need only when `inheritEnv` has said for what. */
  awaitsEnv: boolean
  /** Variables of its environment, besides the inherited ones. */
  env: Record<string, string>
  /** How objects are spilled; `undefined` for not at all. */
  spilling?: SpillSettings
  /** Milliseconds that a put waits for room. */
  putTimeout: number
  /** Whether workers' lines are written by this process. */
  logToDriver: boolean
}
