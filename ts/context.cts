/** What code knows about where it runs. */
import { TaskCancelledError, TaskTimeoutError } from './errors.cjs';
import { native } from './native.cjs';
import { current } from './runtime.cjs';
import type { RuntimeContext } from './types.cjs';

/** The task that runs in this worker now. */
export interface RunningTask {
  execution: number;
  taskId: string;
  name: string;
  attempt: number;
  jobId: string;
  abort: AbortController;
}

let running: RunningTask | undefined;
const outside = new AbortController();

/** Sets the task that runs now. */
export function setRunning(task: RunningTask | undefined): void {
  running = task;
}

/** Aborts the signal of the running task if its run was aborted, and returns its native number then. */
export function tellAborted(): number | undefined {
  const aborted = native.takeAborted();
  let told: number | undefined;
  for (let index = 0; index < aborted.length; index += 2) {
    if (running === undefined || aborted[index] !== running.execution) continue;
    told = running.execution;
    const late = aborted[index + 1] === 1;
    running.abort.abort(
      late
        ? new TaskTimeoutError(`${running.name}() ran longer than its timeoutMs`)
        : new TaskCancelledError(`${running.name}() was cancelled`),
    );
  }
  return told;
}

/** The signal of the running task. */
export function taskSignal(): AbortSignal | undefined {
  return running?.abort.signal;
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
    signal: running?.abort.signal ?? outside.signal,
  };
}
