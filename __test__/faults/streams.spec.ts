/** Streams whose makers and takers die, at chosen and at random moments. */
import { appendFileSync } from 'node:fs';
import test from 'ava';
import {
  allocate,
  cancel,
  get,
  getRuntimeContext,
  isHeliostatError,
  type ObjectRef,
  type ObjectRefGenerator,
  put,
  remote,
  StreamReplayError,
  state,
  WorkerCrashedError,
} from 'heliostat';
import { eventually, killed, workerPids } from '../support/cluster.js';
import { alive, Promises, withWatchedCluster } from '../support/promises.js';

withWatchedCluster(test, { numCpus: 3 });

const KILLS = Number(process.env['HELIOSTAT_KILLS'] ?? 25);
const CANCELLATIONS = 200;

/** Random numbers from 0 to 1, the same ones each time. */
function random(seed: number): () => number {
  let now = seed;
  return () => {
    now = (now * 1_103_515_245 + 12_345) % 2 ** 31;
    return now / 2 ** 31;
  };
}

/** Makes items of 1 KiB, of 200 kB and in place by turns, each of its own bytes, and dies before some of them. */
const mortal = remote(async function* mortal(journal: string, n: number, deaths: number[]) {
  const { attempt } = getRuntimeContext();
  appendFileSync(journal, `run ${attempt}\n`);
  for (let i = 0; i < n; i += 1) {
    if (deaths[attempt] === i) process.kill(process.pid, 'SIGKILL');
    appendFileSync(journal, `made ${i}\n`);
    if (i % 5 === 4) {
      const draft = allocate(Uint8Array, 150_000);
      draft.view.fill(i);
      yield { i, data: draft as never };
    } else yield { i, data: new Uint8Array(i % 3 === 2 ? 200_000 : 1000).fill(i) };
  }
});

type Item = { i: number; data: Uint8Array };

/** Takes everything; a function of its own, so that nothing of it is held afterwards. */
async function takeAll(generator: ObjectRefGenerator<Item>): Promise<{ seen: number[]; error?: Error }> {
  const seen: number[] = [];
  try {
    for await (const ref of generator) {
      const { i, data } = await ref.get();
      if (!data.every((byte) => byte === i % 256)) throw new Error(`wrong bytes in item ${i}`);
      seen.push(i);
    }
    return { seen };
  } catch (error) {
    if (!isHeliostatError(error)) throw error;
    return { seen, error };
  }
}

const upTo = (n: number) => Array.from({ length: n }, (_, i) => i);

test.serial('a maker killed between items is tried again: nothing is lost, nothing comes twice', async (t) => {
  const promises = await Promises.begin(t);
  const { journal } = promises;
  const { seen, error } = await takeAll(mortal.remote(journal, 40, [0, 7, 33]));
  t.is(error, undefined);
  t.deepEqual(seen, upTo(40));
  const made = promises.executions();
  t.deepEqual(
    ['run 0', 'run 1', 'run 2', 'run 3'].map((line) => made.get(line)),
    [1, 1, 1, 1],
  );
  t.deepEqual([made.get('made 3'), made.get('made 20'), made.get('made 35')], [3, 2, 1], 'each run makes all again');
  await promises.keep();
});

test.serial('without retries left, the items before stay readable and the next one throws', async (t) => {
  const promises = await Promises.begin(t);
  for (const maxRetries of [0, 1]) {
    const killed = mortal.options({ maxRetries, bufferedItems: 3 });
    await (async () => {
      const generator = killed.remote(promises.journal, 40, [10, 12]);
      const { seen, error } = await takeAll(generator);
      t.deepEqual(seen, upTo(maxRetries === 0 ? 10 : 12));
      t.true(error instanceof WorkerCrashedError, `${error}`);
      t.is((error as WorkerCrashedError).exitSignal, 'SIGKILL');
      t.regex(error?.message ?? '', /while it ran mortal\(\)/);
      await t.throwsAsync(generator.completed.get(), { instanceOf: WorkerCrashedError });
      t.true((await generator.next()).done);
    })();
  }
  await promises.keep();
});

test.serial('items that another run makes otherwise fail the stream, after those that are there', async (t) => {
  const promises = await Promises.begin(t);
  for (const [kind, fickle] of Object.entries({
    other: remote(function* fickle() {
      for (let i = 0; i < 10; i += 1) {
        if (i === 6 && getRuntimeContext().attempt === 0) process.kill(process.pid, 'SIGKILL');
        yield i === 4 ? new Uint8Array(200_000).fill(getRuntimeContext().attempt) : new Uint8Array(10);
      }
    }),
    fewer: remote(function* fickle() {
      const { attempt } = getRuntimeContext();
      for (let i = 0; i < 6 - 3 * attempt; i += 1) yield new Uint8Array(10);
      if (attempt === 0) process.kill(process.pid, 'SIGKILL');
    }),
  })) {
    await (async () => {
      const generator = fickle.remote();
      const refs: ObjectRef[] = [];
      for await (const ref of generator) refs.push(ref);
      const last = refs.pop() as ObjectRef;
      t.is(refs.length, 6, `${kind}: what the first run made`);
      const { error } = await promises.settle(last);
      t.true(error instanceof StreamReplayError, `${error}`);
      t.truthy((error as StreamReplayError).hint);
      t.true((await get(refs)).every((array) => array instanceof Uint8Array));
      await t.throwsAsync(generator.completed.get(), { instanceOf: StreamReplayError });
    })();
  }
  await promises.keep();
});

test.serial('references inside items that nobody took come from the run that lives', async (t) => {
  const promises = await Promises.begin(t);
  const journal = promises.journal;
  const refs = remote(function* refs(file: string) {
    const { attempt } = getRuntimeContext();
    appendFileSync(file, `run ${attempt}\n`);
    for (let i = 0; i < 6; i += 1) {
      if (i === 4 && attempt === 0) process.kill(process.pid, 'SIGKILL');
      using ref = put(new Uint8Array(200_000).fill(i));
      yield { ref };
    }
  });
  await (async () => {
    const generator = refs.remote(journal);
    await eventually('a second run', () => promises.executions().has('run 1'));
    const values: (number | undefined)[] = [];
    for await (const { ref } of generator.values()) values.push((await ref.get())[0]);
    t.deepEqual(values, upTo(6), 'of four items the first run had made the objects, which went with it');
  })();
  await promises.keep();
});

test.serial(`makers killed at ${KILLS} moments: every item is right and comes once`, async (t) => {
  const promises = await Promises.begin(t);
  const next = random(7);
  for (let round = 0; round < KILLS; round += 1) {
    const streams = Promise.all(
      [3, 16].map((bufferedItems) =>
        takeAll(mortal.options({ maxRetries: -1, bufferedItems }).remote(promises.journal, 60, [])),
      ),
    );
    await new Promise((resolve) => setTimeout(resolve, next() * 40));
    const pids = (await workerPids()).filter((pid) => pid > 0);
    const pid = pids[Math.floor(next() * pids.length)];
    if (pid !== undefined) killed(pid);
    for (const { seen, error } of await streams) {
      t.is(error, undefined);
      t.deepEqual(seen, upTo(60));
    }
  }
  await promises.keep();
});

test.serial('a taker that dies takes its makers along, and nothing of theirs is left', async (t) => {
  const promises = await Promises.begin(t);
  const journal = promises.journal;
  const endless = remote(function* endless(file: string) {
    appendFileSync(file, `${process.pid}\n`);
    for (;;) yield new Uint8Array(200_000);
  });
  const taker = remote(
    async (file: string) => {
      const generator = endless.remote(file);
      await (await generator.next()).value?.get();
      process.kill(process.pid, 'SIGKILL');
      await new Promise(() => {});
    },
    { maxRetries: 0 },
  );
  for (let round = 0; round < 3; round += 1) {
    const { error } = await promises.settle(taker.remote(journal));
    t.true(error instanceof WorkerCrashedError, `${error}`);
  }
  const makers = [...promises.executions().keys()].map(Number);
  t.is(makers.length, 3);
  await eventually('the ends of the makers', () => !makers.some(alive));
  await promises.keep();
});

test.serial(`${CANCELLATIONS} cancellations at random moments leave nothing`, async (t) => {
  const promises = await Promises.begin(t);
  const next = random(11);
  const kinds = {
    now: remote(function* now(n: number) {
      for (let i = 0; i < n; i += 1) yield { i, data: new Uint8Array(i % 4 === 3 ? 150_000 : 500).fill(i) };
    }),
    later: remote(async function* later(n: number) {
      for (let i = 0; i < n; i += 1) {
        if (i % 5 === 0) await new Promise((resolve) => setImmediate(resolve));
        yield { i, data: new Uint8Array(i % 4 === 3 ? 150_000 : 500).fill(i) };
      }
    }),
  };
  /** One stream, left in one of the ways that there are. */
  async function one(): Promise<void> {
    const bufferedItems = 1 + Math.floor(next() * 20);
    const controller = new AbortController();
    const maker = next() < 0.5 ? kinds.now : kinds.later;
    const generator = maker.options({ bufferedItems, signal: controller.signal }).remote(100);
    const after = Math.floor(next() * 30);
    const way = Math.floor(next() * 5);
    const delay = next() * 10;
    const timer = setTimeout(() => {
      if (way === 0) void cancel(generator);
      else if (way === 1) controller.abort();
      else if (way === 2) void generator.return();
      else if (way === 3) void cancel(generator, { force: true });
    }, delay);
    let seen = 0;
    try {
      for await (const ref of generator) {
        const { i, data } = await ref.get();
        if (i !== seen || !data.every((byte) => byte === i)) throw new Error(`wrong item ${seen}`);
        seen += 1;
        if (way === 4 && seen > after) break;
      }
    } catch (error) {
      if (!isHeliostatError(error, 'TASK_CANCELLED')) throw error;
    } finally {
      clearTimeout(timer);
    }
    const { error } = await promises.settle(generator.completed);
    if (error !== undefined && !isHeliostatError(error, 'TASK_CANCELLED')) throw error;
  }
  for (let count = 0; count < CANCELLATIONS; count += 10) await Promise.all(Array.from({ length: 10 }, one));
  await eventually('idle workers', async () => (await state.listWorkers()).every((worker) => worker.state === 'idle'));
  await promises.keep();
});
