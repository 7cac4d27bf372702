/* The raw functions of the addon; the rest below is generated. Internal: users import the package itself. */

/** A serialised value read from the cluster; each of `refs` is a new handle. */
export interface RawValue { header: Uint8Array; buffers: ArrayBuffer[]; refs: number[] }
/** Why a reference has no value. */
export interface RawFailure {
  code: string; message: string; hint?: string; inherited: boolean
  facts: Record<string, string | number | null>; thrown?: RawValue
}
/** A task to run. */
export interface RawTask {
  execution: number; taskId: string; attempt: number; jobId: string; name: string; function: Uint8Array
  args: RawValue; positions: number[]; values: RawValue[]; returns: number
}
/** The out-of-band buffers of a value, or the number of the draft that is its only one. */
export type Buffers = ArrayBufferView[] | number
export declare function put(header: Uint8Array, headerLength: number, buffers: Buffers, refs: number[]): number
/** Of a value that is spilled: waits for it, or throws SPILLED. */
export declare function read(handle: number, mayWait: boolean): RawValue | RawFailure | undefined
/** The length of a small inline value, copied into `scratch`; -1 for every other state. */
export declare function readInto(handle: number, scratch: Uint8Array): number
export declare function release(handle: number): void
export declare function free(handle: number): boolean
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
export declare function setPatience(millis: number, ticket: number, last: boolean): void
export declare function wait(handles: number[], needed: number, failFast: boolean): number
export declare function endWait(wait: number): void
export declare function block(handles: number[], timeoutMs: number): boolean
/** Events: the number of a wait that is over, -1 a task, -2 a write into the store, -3 the node
 *  ended, -4 others wait for room in the store. */
export declare function openPort(callback: (events: number[]) => void): number
export declare function closePort(): void
export declare function holdLoop(hold: boolean): void
export declare function defineFunction(hash: Uint8Array, header: Uint8Array, headerLength: number, buffers: Buffers, refs: number[]): void
/** Holds a function once more; false when it has to be defined. */
export declare function useFunction(hash: Uint8Array): boolean
export declare function dropFunction(hash: Uint8Array): void
export declare function submit(
  name: string, hash: Uint8Array, header: Uint8Array, headerLength: number, buffers: Buffers, refs: number[],
  positions: number[], byRef: number[], returns: number, needs: (string | number)[], retries: number, parent: number): number[]
export declare function nextTask(): RawTask | undefined
/** Functions that need not be kept any more. */
export declare function takeForgotten(): Uint8Array[] | undefined
export declare function functionValue(hash: Uint8Array): RawValue | undefined
export declare function addResult(execution: number, header: Uint8Array, headerLength: number, buffers: Buffers, refs: number[]): void
export declare function addFailure(
  execution: number, code: string, message: string, facts: (string | number)[],
  header: Uint8Array, headerLength: number, buffers: Buffers, refs: number[]): void
export declare function dropResults(execution: number): void
export declare function finishTask(execution: number, nanos: number): void
export declare function markOutput(marker: string, name: string): void
export declare function takeWrites(): string[] | undefined
export declare function setTransfer(transfer: (this: ArrayBuffer) => ArrayBuffer): void
/** Bytes of the store's buffers that this thread holds, or held and did not sweep yet. */
export declare function heldBytes(): number
export declare function sweepViews(): number
/** Whether buffers outside of the engine's memory are taken for refused, as some runtimes do; for tests. */
export declare function refuseViews(refuse: boolean): void
/** Whether data was copied since the last call because such buffers are refused. */
export declare function takeCopied(): boolean
export declare function trackRef(handle: number, ref: object): void
export declare function untrackRef(handle: number): void
/** Handles of tracked references that were collected; they are untracked. */
export declare function sweepRefs(): number[]
/** Zeroed memory of the store to fill in place. */
export declare function allocate(length: number): [draft: number, buffer: ArrayBuffer]
export declare function detachDraft(buffer: ArrayBuffer): void
export declare function dropDraft(draft: number, buffer: ArrayBuffer): void
export declare function detachView(buffer: ArrayBuffer): boolean

