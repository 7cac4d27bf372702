/** What the cluster is made of and how it fares. */
import { notYet } from './errors.cjs';
import { native } from './native.cjs';
import { current } from './runtime.cjs';
import { translated } from './transfer.cjs';
import type { ActorState, NodeInfo, ObjectState, TaskState, WorkerState } from './types.cjs';

interface NodeState {
  nodeId: string;
  total: Record<string, number>;
  available: Record<string, number>;
  labels: Record<string, string>;
  capacity: number;
  used: number;
  spilled: number;
  file: number;
  spilling: SpillingFigures;
  objects: number;
  pins: number;
  drafts: number;
  copied: number;
  workers: { workerId: string; pid: number; state: WorkerState['state'] }[];
}

/** What a node spilled and brought back since its start, and what is spilled or waits now. */
export interface SpillingFigures {
  /** Objects that are spilled now. */
  objects: number;
  spilledBytes: number;
  spilledObjects: number;
  /** Bytes per second, over the time in which something was written. */
  spillThroughput: number;
  restoredBytes: number;
  restoredObjects: number;
  /** Bytes per second, over the time in which something was read back. */
  restoreThroughput: number;
  /** Requests that wait for room. */
  waiting: number;
}

async function nodeState(): Promise<NodeState> {
  current();
  return JSON.parse(translated(() => native.nodeState())) as NodeState;
}

/** The nodes of the cluster. */
export async function nodes(): Promise<NodeInfo[]> {
  const { context } = current();
  const { nodeId, total, labels, capacity, used, spilled } = await nodeState();
  return [
    {
      nodeId,
      address: context.address,
      alive: true,
      resources: total,
      labels,
      objectStore: { capacity, used, spilled },
    },
  ];
}

/** Everything that tasks can ask for: CPU, GPU, memory and custom names. */
export async function clusterResources(): Promise<Record<string, number>> {
  return (await nodeState()).total;
}

/** What of it is free now. */
export async function availableResources(): Promise<Record<string, number>> {
  return (await nodeState()).available;
}

/** Chrome trace events of the session. */
export function timeline(_path?: string): Promise<object[]> {
  return Promise.reject(notYet('timeline()'));
}

/** Queries about the inside of the cluster. */
export const state: {
  listObjects(filter?: Partial<ObjectState>): Promise<ObjectState[]>;
  listTasks(filter?: Partial<TaskState>): Promise<TaskState[]>;
  listActors(filter?: Partial<ActorState>): Promise<ActorState[]>;
  listWorkers(): Promise<WorkerState[]>;
  summarizeTasks(): Promise<Record<string, Record<string, number>>>;
  /**
   * The object store of this node. All but the counts of objects, pins and drafts are bytes. `spilled` are objects that
   * are in storage now; `file` those that the memory cannot take and that lie in a file on disk; `spilling` says what was
   * written and brought back so far. `copied` grows since the
   * node's start by every value that a process copied into the store; what was filled in place (`allocate()`,
   * `Tensor.allocate()`) and values small enough to travel in messages add nothing. `inline` are the bytes of values that
   * this process keeps itself.
   */
  memory(): Promise<{
    used: number;
    capacity: number;
    spilled: number;
    file: number;
    objects: number;
    pins: number;
    drafts: number;
    copied: number;
    inline: number;
    spilling: SpillingFigures;
  }>;
} = {
  listObjects: () => Promise.reject(notYet('state.listObjects()')),
  listTasks: () => Promise.reject(notYet('state.listTasks()')),
  listActors: () => Promise.reject(notYet('state.listActors()')),
  summarizeTasks: () => Promise.reject(notYet('state.summarizeTasks()')),
  async listWorkers() {
    const { nodeId, workers } = await nodeState();
    return workers.map(({ workerId, pid, state: activity }) => ({ workerId, pid, nodeId, state: activity }));
  },
  async memory() {
    const { used, capacity, spilled, file, objects, pins, drafts, copied, spilling } = await nodeState();
    return { used, capacity, spilled, file, objects, pins, drafts, copied, inline: native.inlineBytes(), spilling };
  },
};
