/**
 * The promises that hold whatever dies (`ARCHITECTURE.md`, I1 to I7), checked at the end of each test of a fault.
 *
 * A test begins with `const promises = await Promises.begin(t)`, makes its calls through it, and ends with `await promises.keep()`.
 */
import { appendFileSync, existsSync, mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext, TestFn } from 'ava';
import { get, type InitOptions, init, isHeliostatError, type ObjectRef, put, remote, shutdown, state } from 'heliostat';
import { collectGarbage, descendants, descriptors, eventually, storeIsEmpty, workerPids } from './cluster.js';

/** Descriptors of the driver's process for each worker: in the daemon its connection, its pidfd, its two pipes and its bell (memory and two events), in the driver that bell's events once more. */
const DESCRIPTORS_OF_WORKER = 9;
/** Mappings of the daemon for each worker: its pages in the store. */
const MAPPINGS_OF_WORKER = 1;

/** Whether a process lives; a zombie does not. */
export function alive(pid: number): boolean {
  try {
    return !/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
}

/** How a call ended. */
export type Outcome<T = unknown> = { value: T; error?: never } | { value?: never; error: Error };

interface Count {
  workers: number;
  descriptors: number;
  mappings: number;
}

function mappings(pid: number): number {
  const lines = readFileSync(`/proc/${pid}/maps`, 'utf8').split('\n');
  return lines.filter((line) => line.includes('memfd:heliostat-client')).length;
}

/** Runs as many tasks at the same time, each on a worker of its own; gives the workers' process ids. */
async function allAtOnce(tasks: number): Promise<number[]> {
  const file = join(mkdtempSync(join(tmpdir(), 'heliostat-test-')), 'here');
  const here = remote(
    async () => {
      appendFileSync(file, '.');
      // Not for ever: a worker may have ended meanwhile.
      for (let turn = 0; turn < 200 && readFileSync(file, 'utf8').length < tasks; turn += 1) {
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      return process.pid;
    },
    { numCpus: 0 },
  );
  return get(Array.from({ length: tasks }, () => here.remote()));
}

async function count(): Promise<Count> {
  const workers = (await workerPids()).length;
  return { workers, descriptors: descriptors(process.pid).length, mappings: mappings(process.pid) };
}

/** Puts, gets and small tasks, one after the other, for as long as others die: somebody who must not notice. */
export class Bystander {
  rounds = 0;
  #stopped = false;
  readonly #end: Promise<void>;

  constructor() {
    this.#end = this.#run();
    // Reported by whoever waits for progress, or for the end.
    this.#end.catch(() => {});
  }

  async #run(): Promise<void> {
    const twice = remote((bytes: Uint8Array) => (bytes[0] as number) + (bytes[99_999] as number), { maxRetries: 0 });
    while (!this.#stopped) {
      const byte = this.rounds % 100;
      const ref = put(new Uint8Array(200_000).fill(byte));
      if ((await get(ref))[199_999] !== byte) throw new Error(`wrong bytes in round ${this.rounds}`);
      if ((await get(twice.remote(ref))) !== 2 * byte) throw new Error(`a wrong result in round ${this.rounds}`);
      this.rounds += 1;
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  /** Waits for further rounds. */
  async goesOn(rounds = 20): Promise<void> {
    const goal = this.rounds + rounds;
    await Promise.race([this.#end, eventually(`round ${goal} of the bystander`, () => this.rounds >= goal)]);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#end;
  }
}

export class Promises {
  readonly #before: Count;
  #calls = 0;
  #settled = 0;
  /** I1 and I2: objects of this process that are there all the time, with the byte that fills each. */
  #witnesses: { ref: ObjectRef<Uint8Array>; byte: number }[] | undefined;
  /** I7: a file that executions write to, outside of the cluster. */
  readonly #journal = join(mkdtempSync(join(tmpdir(), 'heliostat-test-')), 'journal');

  private constructor(
    private readonly t: ExecutionContext,
    before: Count,
  ) {
    this.#before = before;
    this.#witnesses = [10, 99_000, 200_000, 3_000_000].map((length, index) => {
      return { ref: put(new Uint8Array(length).fill(index + 1)), byte: index + 1 };
    });
    appendFileSync(this.#journal, '');
  }

  /** Waits until workers are there and nothing is held, and counts what there is. */
  static async begin(t: ExecutionContext): Promise<Promises> {
    // Every worker has talked to this process once: what that needs is no leak.
    const seen = new Set<number>();
    await eventually('all workers at work', async () => {
      const workers = await state.listWorkers();
      if (workers.some((worker) => worker.state !== 'idle')) return false;
      if (workers.every((worker) => seen.has(worker.pid))) return true;
      for (const pid of await allAtOnce(workers.length)) seen.add(pid);
      return false;
    });
    await storeIsEmpty();
    return new Promises(t, await count());
  }

  /** Somebody who works meanwhile; stopped at the end of the test at the latest. */
  bystander(): Bystander {
    const bystander = new Bystander();
    this.t.teardown(() => bystander.stop());
    return bystander;
  }

  /** Path of a file to which tasks append a line at each execution. */
  get journal(): string {
    return this.#journal;
  }

  /** The lines of the journal and how often each is there. */
  executions(): Map<string, number> {
    const counts = new Map<string, number>();
    for (const line of readFileSync(this.#journal, 'utf8').split('\n').filter(Boolean)) {
      counts.set(line, (counts.get(line) ?? 0) + 1);
    }
    return counts;
  }

  /** I5 and I2: the call's value, or an error of this package; anything else fails the test. */
  async settle<T>(ref: ObjectRef<T>): Promise<Outcome<T>> {
    this.#calls += 1;
    try {
      return { value: await get(ref) };
    } catch (error) {
      if (!isHeliostatError(error)) throw error;
      return { error };
    } finally {
      this.#settled += 1;
    }
  }

  /** Checks all of them. References that the test made itself must be garbage by now. */
  async keep(): Promise<void> {
    await eventually(
      () => `the end of every call (${this.#settled} of ${this.#calls} have ended)`,
      () => this.#settled === this.#calls,
    );
    await this.#readWitnesses();
    this.#witnesses = undefined;
    // By the store's own count. (I3: an unsealed object would be a draft here.)
    await storeIsEmpty();
    // By the system's: processes, descriptors and mappings are those of the workers that live.
    let last = '';
    await eventually(
      () => `a driver without leaks (before: ${JSON.stringify(this.#before)}, last: ${last})`,
      async () => {
        const now = await count();
        const more = Math.max(0, now.workers - this.#before.workers);
        const strangers = descendants(process.pid).filter((pid) => alive(pid));
        const workers = new Set(await workerPids());
        const left = strangers.filter((pid) => !workers.has(pid) && !ofTestRunner.has(pid));
        last = JSON.stringify({ ...now, left });
        return (
          now.descriptors <= this.#before.descriptors + more * DESCRIPTORS_OF_WORKER &&
          now.mappings <= this.#before.mappings + more * MAPPINGS_OF_WORKER &&
          left.length === 0
        );
      },
    );
    this.t.pass();
  }

  async #readWitnesses(): Promise<void> {
    for (const { ref, byte } of this.#witnesses ?? []) {
      this.t.true(
        (await get(ref)).every((found) => found === byte),
        'objects of a living owner are there, byte for byte',
      );
    }
  }
}

/** Children of this process that were there before the cluster. */
const ofTestRunner = new Set<number>();

/** Starts a cluster for the tests of a file; after them the process is as it was before. */
export function withWatchedCluster(test: TestFn, options: InitOptions = {}): void {
  let before = { descriptors: 0, mappings: 0 };
  let directory = '';
  test.before('the cluster starts', async () => {
    for (const pid of descendants(process.pid)) ofTestRunner.add(pid);
    // Once round: threads of the pool and the like come with the first session and stay.
    await init({ numCpus: 1 });
    await remote(() => 1)
      .remote()
      .get();
    await shutdown();
    await collectGarbage();
    before = { descriptors: descriptors(process.pid).length, mappings: mappings(process.pid) };
    const context = await init({ numCpus: 2, objectStoreMemory: 256 << 20, logToDriver: false, ...options });
    directory = join(context.address.slice('unix:'.length), '..');
  });
  test.after.always('shutdown leaves nothing behind', async (t) => {
    const workers = await workerPids();
    await shutdown();
    t.deepEqual(workers.filter(alive), [], 'no worker lives');
    t.false(existsSync(directory), 'no file is left');
    await collectGarbage();
    t.true(descriptors(process.pid).length <= before.descriptors, `descriptors: ${descriptors(process.pid).join(' ')}`);
    t.true(mappings(process.pid) <= before.mappings, 'no mapping is left');
  });
}
