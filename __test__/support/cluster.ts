/** What tests of the running system share: starting it, and checking that nothing is left of it. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { TestFn } from 'ava';
import { type InitOptions, init, shutdown, state } from 'heliostat';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

/** Fails a test that waits for something that never comes. */
const WATCHDOG_MS = 60_000;

/** Waits until `condition` gives a value that is not false or undefined, and returns it. */
export async function eventually<T>(
  what: string | (() => string),
  condition: () => T | Promise<T>,
): Promise<NonNullable<T>> {
  const end = Date.now() + WATCHDOG_MS;
  for (;;) {
    const value = await condition();
    if (value !== undefined && value !== null && value !== false) return value as NonNullable<T>;
    if (Date.now() > end)
      throw new Error(`watchdog: ${typeof what === 'string' ? what : what()} did not come about in ${WATCHDOG_MS} ms`);
    await sleep(10);
  }
}

/** Collects garbage and lets finalizers run. */
export async function collectGarbage(): Promise<void> {
  for (let round = 0; round < 3; round += 1) {
    collect();
    await sleep(5);
  }
}

/** Process ids of living children (and their children) of a process. */
export function descendants(of: number): number[] {
  const parents = new Map<number, number>();
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const stat = readFileSync(`/proc/${name}/stat`, 'utf8');
      const [status, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      if (status !== 'Z') parents.set(Number(name), Number(parent));
    } catch {
      // It ended meanwhile.
    }
  }
  const found: number[] = [];
  const next = [of];
  for (let pid = next.pop(); pid !== undefined; pid = next.pop()) {
    for (const [child, parent] of parents) {
      if (parent !== pid) continue;
      next.push(child);
      found.push(child);
    }
  }
  return found;
}

/** What a process's descriptors point to, by descriptor. */
export function descriptors(pid: number): string[] {
  return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/${pid}/fd/${fd}`)];
    } catch {
      return [];
    }
  });
}

// A file without a name shows as `/directory/#inode (deleted)`.
const ours = (target: string) => /memfd:|heliostat-\d+\/|\/#\d+ \(deleted\)/.test(target);

/** Workers of this process, by process id. */
export async function workerPids(): Promise<number[]> {
  return (await state.listWorkers()).map(({ pid }) => pid);
}

/** Kills a worker that may have ended since it was listed; whether it lived. */
export function killed(pid: number): boolean {
  try {
    return process.kill(pid, 'SIGKILL');
  } catch {
    return false;
  }
}

/** Waits until the store holds nothing: no bytes, objects, pins or drafts. */
export async function storeIsEmpty(): Promise<void> {
  let last = '';
  await eventually(
    () => `an empty store (last seen: ${last})`,
    async () => {
      await collectGarbage();
      const { used, objects, pins, drafts } = await state.memory();
      last = JSON.stringify({ used, objects, pins, drafts });
      return used === 0 && objects === 0 && pins === 0 && drafts === 0;
    },
  );
}

/** Starts a cluster for the tests of a file; after them nothing of it may be left. */
export function withCluster(test: TestFn, options: InitOptions = {}): void {
  let address = '';
  test.before('the cluster starts', async () => {
    const context = await init({ numCpus: 2, objectStoreMemory: 256 << 20, ...options });
    address = context.address.slice('unix:'.length);
  });
  test.after.always('shutdown leaves nothing behind', async (t) => {
    const workers = await workerPids();
    await shutdown();
    const alive = descendants(process.pid).filter((pid) => workers.includes(pid));
    t.deepEqual(alive, [], 'no worker lives');
    t.throws(() => readdirSync(address.slice(0, address.lastIndexOf('/'))), { code: 'ENOENT' }, 'no file is left');
    await collectGarbage();
    t.deepEqual(descriptors(process.pid).filter(ours), [], 'no descriptor is left');
  });
}
