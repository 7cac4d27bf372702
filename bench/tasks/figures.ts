/** Lines of the table of `tasks`: what was measured, what it should be, and how many times better it is. */
import type { Row } from '../report.ts';

/** Takes a line as soon as it is known. */
export type Add = (row: Row) => void;

/** Which way a figure is good. */
export type Better = 'less' | 'more';

interface Measured {
  readonly name: string;
  readonly measured: number;
  readonly unit: string;
  readonly better: Better;
}

/** How many times better `measured` is than `other`. */
function timesBetter(measured: number, other: number, better: Better): number {
  return better === 'less' ? other / measured : measured / other;
}

/** A figure with its goal. */
export function withGoal(figure: Measured, goal: number, note = ''): Row {
  const times = timesBetter(figure.measured, goal, figure.better);
  return { ...figure, goal, 'times better': times, met: times >= 1 ? 'yes' : 'NO', note };
}

/** A figure that stands for itself. */
export function plain(name: string, measured: number, unit: string, note = ''): Row {
  return { name, measured, unit, better: '', goal: '', 'times better': '', met: '', note };
}

/** What somebody else took in the same run, and how many times better Heliostat's figure is. */
export function rival(theirs: Measured, ours: number): Row {
  const times = timesBetter(ours, theirs.measured, theirs.better);
  return { ...theirs, goal: '', 'times better': times, met: '', note: '' };
}

/** The same for a figure that somebody published, of another machine. */
export function published({ name, value, unit, better, source }: Published, ours: number): Row {
  const theirs = { name: `  PUBLISHED (64 vCPU), not measured: Ray, ${name}`, measured: value, unit, better };
  return { ...rival(theirs, ours), note: source };
}

export interface Published {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  readonly better: Better;
  readonly source: string;
}

const MICROBENCHMARK = 'ray@08444c4 release/perf_metrics/microbenchmark.json';
const SINGLE_NODE = 'ray@0652555 release/perf_metrics/scalability/single_node.json';
const perSecond = (name: string, value: number): Published => ({
  name,
  value,
  unit: '/s',
  better: 'more',
  source: MICROBENCHMARK,
});
const seconds = (name: string, value: number): Published => ({
  name,
  value,
  unit: 's',
  better: 'less',
  source: SINGLE_NODE,
});

/** What Ray publishes of its own release tests: one client on a machine of 64 vCPUs, in that commit of its repository. */
export const RAY = {
  oneAtATime: perSecond('single_client_tasks_sync', 980.7),
  inFlight: perSecond('single_client_tasks_async', 8_040.5),
  wait: perSecond('single_client_wait_1k_refs', 5.08),
  containing: perSecond('single_client_get_object_containing_10k_refs', 13.37),
  arguments: seconds('10000_args_time (lists of 10,000 numbers)', 17.22),
  returns: seconds('3000_returns_time (lists of 10,000 numbers)', 5.716),
  queued: seconds('1000000_queued_time', 184.4),
};
