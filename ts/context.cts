/** What code knows about where it runs. */
import { TaskCancelledError, TaskTimeoutError } from './errors.cjs';
import { native } from './native.cjs';
import { current } from './runtime.cjs';
import type { RuntimeContext } from './types.cjs';

/** What a task is called. */
interface TaskInfo {
  taskId: string;
  name: string;
  attempt: number;
  jobId: string;
}

/** A run of a task in this worker. What few tasks ask for is made when they do. */
export class TaskRun {
  #info: TaskInfo | undefined;
  #abort: AbortController | undefined;
  #aborted: Error | undefined;

  constructor(
    /** Its native number. */
    readonly execution: number,
    info?: TaskInfo,
  ) {
    this.#info = info;
  }

  get taskId(): string {
    return this.#known().taskId;
  }

  get name(): string {
    return this.#known().name;
  }

  get attempt(): number {
    return this.#known().attempt;
  }

  get jobId(): string {
    return this.#known().jobId;
  }

  /** Aborts when the run does not count any more. */
  get signal(): AbortSignal {
    if (this.#abort === undefined) {
      this.#abort = new AbortController();
      if (this.#aborted !== undefined) this.#abort.abort(this.#aborted);
    }
    return this.#abort.signal;
  }

  /** The run does not count any more. */
  abort(reason: Error): void {
    this.#aborted ??= reason;
    this.#abort?.abort(reason);
  }

  throwIfAborted(): void {
    if (this.#aborted !== undefined) throw this.#aborted;
  }

  #known(): TaskInfo {
    this.#info ??= native.taskInfo(this.execution);
    return this.#info;
  }
}

let running: TaskRun | undefined;
const outside = new AbortController();

/** Sets the task that runs now. */
export function setRunning(run: TaskRun | undefined): void {
  running = run;
}

/** Aborts the signal of the running task if its run was aborted, and returns its native number then. */
export function tellAborted(): number | undefined {
  const aborted = native.takeAborted();
  let told: number | undefined;
  for (let index = 0; index < aborted.length; index += 2) {
    if (running === undefined || aborted[index] !== running.execution) continue;
    told = running.execution;
    const late = aborted[index + 1] === 1;
    running.abort(
      late
        ? new TaskTimeoutError(`${running.name}() ran longer than its timeoutMs`)
        : new TaskCancelledError(`${running.name}() was cancelled`),
    );
  }
  return told;
}

/** The signal of the running task. */
export function taskSignal(): AbortSignal | undefined {
  return running?.signal;
}

/** The running task's native number, or -1 outside of tasks. */
export function parentExecution(): number {
  return running?.execution ?? -1;
}

/**
 * Job, node, process and task that the calling code belongs to. `attempt` counts the runs of the task from 0; `signal` aborts
 * when the task is cancelled or runs longer than its `timeoutMs`.
 *
 * @example
 * const poll = remote(async () => {
 *   const { signal, attempt } = getRuntimeContext();
 *   while (!signal.aborted) await step(attempt);
 * });
 */
export function getRuntimeContext(): RuntimeContext {
  const { context, workerId } = current();
  return {
    jobId: running?.jobId ?? context.jobId,
    nodeId: context.nodeId,
    workerId,
    taskId: running?.taskId ?? null,
    taskName: running?.name ?? null,
    actorId: null,
    attempt: running?.attempt ?? 0,
    wasActorRestarted: false,
    assignedResources: {},
    signal: running?.signal ?? outside.signal,
  };
}
