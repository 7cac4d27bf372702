/** What the kernel says of processes. */
import { readFileSync } from 'node:fs';

/** The proportional set size in bytes: pages of its own, and its share of those that several processes map. */
export function pss(pid: number | 'self'): number {
  const found = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8').match(/^Pss:\s+(\d+) kB$/m);
  if (!found) throw new Error(`the kernel does not tell the PSS of process ${pid}`);
  return Number(found[1]) * 1024;
}

export const pause = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));
