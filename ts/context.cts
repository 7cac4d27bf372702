/** What code knows about where it runs. */
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

/** The running task's native number, or -1 outside of tasks. */
export function parentExecution(): number {
  return running?.execution ?? -1;
}

/** Job, node, process and task that the calling code belongs to. */
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
