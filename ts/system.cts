/** What this machine, or the container it is, has. */
import { readFileSync } from 'node:fs';
import { availableParallelism, totalmem } from 'node:os';

const CGROUP = '/sys/fs/cgroup';

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return undefined;
  }
}

/** The control groups of this process, innermost first, as directories that may exist. */
function groups(controller: string): string[] {
  const lines = (read('/proc/self/cgroup') ?? '').split('\n');
  const found: string[] = [];
  for (const line of lines) {
    const [, controllers, path] = line.split(':');
    if (path === undefined) continue;
    const base =
      controllers === ''
        ? CGROUP
        : controllers?.split(',').includes(controller)
          ? `${CGROUP}/${controller}`
          : undefined;
    if (base === undefined) continue;
    for (let at = path; ; at = at.slice(0, at.lastIndexOf('/'))) {
      found.push(base + at.replace(/\/$/, ''));
      if (at === '' || at === '/') break;
    }
  }
  return found;
}

/** CPUs that this process may use at once; fractions of a container's quota count up. */
export function cpus(): number {
  let count = availableParallelism();
  for (const group of groups('cpu')) {
    const [max, period] = (read(`${group}/cpu.max`) ?? '').split(' ').map(Number);
    const quota = Number(read(`${group}/cpu.cfs_quota_us`)) / Number(read(`${group}/cpu.cfs_period_us`));
    for (const limit of [(max ?? Number.NaN) / (period ?? Number.NaN), quota]) {
      if (limit > 0) count = Math.min(count, Math.max(1, Math.ceil(limit)));
    }
  }
  return count;
}

/** Bytes of memory, or of the tightest control group. */
export function memory(): number {
  let bytes = totalmem();
  for (const group of groups('memory')) {
    for (const file of ['memory.max', 'memory.limit_in_bytes']) {
      const limit = Number(read(`${group}/${file}`) || Number.NaN);
      if (limit > 0) bytes = Math.min(bytes, limit);
    }
  }
  return bytes;
}
