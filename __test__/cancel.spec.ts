import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import {
  cancel,
  free,
  get,
  getNamed,
  getRuntimeContext,
  getSync,
  type ObjectRef,
  put,
  remote,
  state,
  TaskCancelledError,
} from 'heliostat';
import { eventually, storeIsEmpty, withCluster, workerPids } from './support/cluster.js';

withCluster(test);

const idle = () =>
  eventually('idle workers', async () => (await state.listWorkers()).every((worker) => worker.state === 'idle'));
const cancelled = { instanceOf: TaskCancelledError, code: 'TASK_CANCELLED' } as const;
/** Runs until its signal aborts, and tells of both by named objects when it is given a name for them. */
const untilAborted = remote(async (mark?: unknown) => {
  const { signal } = getRuntimeContext();
  if (typeof mark === 'string') put(process.pid, { name: `${mark} began` });
  await new Promise((resolve) => signal.addEventListener('abort', resolve));
  if (typeof mark === 'string') put(signal.reason.code, { name: `${mark} told` });
});

/** The value of a named object, as soon as there is one. */
async function named<T>(name: string): Promise<T> {
  const ref = await eventually(`the name ${name}`, () => getNamed<T>(name).catch(() => undefined));
  const value = await ref.get();
  free(ref);
  return value;
}

const running = (count: number) =>
  eventually(
    'running tasks',
    async () => (await state.listWorkers()).filter((w) => w.state === 'busy').length >= count,
  );

test.serial('a task that runs is told, its gets end at once, and its worker lives on', async (t) => {
  const ref = untilAborted.remote('first');
  const pid = await named<number>('first began');
  const waiting = t.throwsAsync(ref.get(), cancelled);
  await cancel(ref);
  const error = await waiting;
  t.regex(error?.message ?? '', /was cancelled/);
  await t.throwsAsync(ref.get(), cancelled);
  t.is(await named('first told'), 'TASK_CANCELLED');
  await idle();
  t.true((await workerPids()).includes(pid));
  await cancel(ref);
  const done = remote(() => 5).remote();
  t.is(await done.get(), 5);
  await cancel(done, { force: true });
  t.is(await done.get(), 5, 'nothing happens to what has ended');
  await cancel(put(1));
});

test.serial('tasks that are queued, or wait for arguments, never run', async (t) => {
  const blockers = [untilAborted.remote(), untilAborted.remote()];
  const mark = remote((_after?: unknown) => {
    (globalThis as Record<string, unknown>)['ran'] = true;
  });
  const queued = mark.remote();
  const waiting = mark.remote(blockers[0]);
  const dependant = mark.remote(queued);
  await cancel(queued);
  await cancel(waiting);
  for (const ref of [queued, waiting, dependant]) await t.throwsAsync(ref.get(), cancelled);
  for (const ref of blockers) await cancel(ref);
  await idle();
  const ran = remote(() => (globalThis as Record<string, unknown>)['ran'] === true);
  t.deepEqual(await get(Array.from({ length: 8 }, () => ran.remote())), Array(8).fill(false));
});

test.serial('tasks that were sent ahead are taken back, those around them run', async (t) => {
  const quick = remote((x: number) => x);
  await get(Array.from({ length: 300 }, (_, i) => quick.remote(i)));
  const refs = Array.from({ length: 300 }, (_, i) => quick.remote(i));
  await Promise.all(refs.filter((_, i) => i % 3 === 0).map((ref) => cancel(ref)));
  for (const [i, ref] of refs.entries()) {
    const value = await ref.get().catch((error) => error.code);
    t.true(i % 3 === 0 ? value === i || value === 'TASK_CANCELLED' : value === i, `${i}: ${value}`);
  }
});

test.serial('synchronous code runs on to its end, or dies by force with its neighbours unharmed', async (t) => {
  const once = remote((x: number) => x, { maxRetries: 0 });
  await get(Array.from({ length: 300 }, (_, i) => once.remote(i)));
  const busy = remote((ms: number) => {
    const end = Date.now() + ms;
    while (Date.now() < end);
    return process.pid;
  });
  const short = busy.remote(300);
  await running(1);
  await cancel(short);
  await t.throwsAsync(short.get(), cancelled);
  await idle();
  for (const way of ['at once', 'after a plain cancel']) {
    const before = await workerPids();
    const forever = busy.remote(1e9);
    const behind = Array.from({ length: 100 }, (_, i) => once.remote(i));
    await running(1);
    await sleep(50);
    if (way !== 'at once') await cancel(forever);
    await cancel(forever, { force: true });
    await t.throwsAsync(forever.get(), cancelled);
    t.deepEqual(
      await get(behind),
      behind.map((_, i) => i),
    );
    await eventually('the end of the worker', async () => {
      const now = await workerPids();
      return before.some((pid) => !now.includes(pid));
    });
  }
});

test.serial('a stopped worker is killed by force', async (t) => {
  const stop = remote(() => {
    process.kill(process.pid, 'SIGSTOP');
  });
  const ref = stop.remote();
  await running(1);
  await sleep(100);
  await cancel(ref, { force: true });
  await t.throwsAsync(ref.get(), cancelled);
  await idle();
});

test.serial('asynchronous code that ignores its signal ends with its worker', async (t) => {
  const deaf = remote(() => new Promise<number>(() => {}));
  const ref = deaf.remote();
  await running(1);
  await cancel(ref);
  await t.throwsAsync(ref.get(), cancelled);
  await idle();
});

test.serial('children go with their parent, or stay', async (t) => {
  const family = remote(async (box: { child: typeof untilAborted; out: ObjectRef<unknown>[] }, way: string) => {
    const child = box.child.remote();
    if (way === 'sync') return getSync(child);
    return get(child);
  });
  for (const way of ['async', 'sync']) {
    const parent = family.remote({ child: untilAborted, out: [] }, way);
    await running(2);
    await cancel(parent);
    await t.throwsAsync(parent.get(), cancelled);
    await idle();
  }
  const outliving = remote(async (_n: number) => {
    const slow = remote(async () => {
      await new Promise((resolve) => setTimeout(resolve, 300));
      return 7;
    });
    const ref = slow.remote();
    put({ ref }, { name: 'child' });
    await get(ref);
  });
  const parent = outliving.remote(1);
  const { ref: child } = await named<{ ref: ObjectRef<number> }>('child');
  await cancel(parent, { recursive: false });
  await t.throwsAsync(parent.get(), cancelled);
  t.is(await child.get(), 7);
});

test.serial('a borrower cancels too', async (t) => {
  const ref = untilAborted.remote();
  await running(1);
  const canceller = remote(async (box: { ref: ObjectRef<unknown> }) => {
    await cancel(box.ref);
    return get(box.ref).catch((error) => error.code);
  });
  t.is(await canceller.remote({ ref }).get(), 'TASK_CANCELLED');
  await t.throwsAsync(ref.get(), cancelled);
});

test.serial('a signal cancels its tasks', async (t) => {
  const controller = new AbortController();
  const with_ = untilAborted.options({ signal: controller.signal });
  const refs = Array.from({ length: 150 }, () => with_.remote());
  await running(2);
  const done = remote(() => 3, { signal: controller.signal });
  controller.abort();
  for (const ref of refs) await t.throwsAsync(ref.get(), cancelled);
  await t.throwsAsync(done.remote().get(), cancelled, 'aborted before the call');
  t.is(await done.options({ signal: new AbortController().signal }).remote().get(), 3);
  const [a, b] = remote(() => [1, 2], { signal: controller.signal })
    .options({ numReturns: 2 })
    .remote();
  for (const ref of [a, b]) await t.throwsAsync(get(ref as ObjectRef), cancelled);
  await idle();
});

test.serial('1,000 cancellations at random times: all settle, nothing is left', async (t) => {
  const kinds = [
    remote((data: Uint8Array) => data.slice(0, 10)),
    remote(async (data: Uint8Array) => {
      await new Promise((resolve) => setTimeout(resolve, data.length % 7));
      return new Uint8Array(150_000);
    }),
    remote(async (_data: Uint8Array) => {
      const inner = remote((x: number) => x + 1);
      return (await get([inner.remote(1), inner.remote(2)])).length;
    }),
    remote((data: Uint8Array) => {
      const end = Date.now() + (data.length % 5);
      while (Date.now() < end);
      throw new Error('on purpose');
    }),
  ] as const;
  let seed = 1;
  const random = (below: number) => {
    seed = (seed * 48_271) % 2_147_483_647;
    return seed % below;
  };
  const input = put(new Uint8Array(120_000));
  const outcomes = { value: 0, cancelled: 0, failed: 0 };
  for (let batch = 0; batch < 10; batch += 1) {
    const calls = Array.from({ length: 100 }, async () => {
      const kind = kinds[random(kinds.length)] as (typeof kinds)[0];
      const force = random(100) === 0;
      const pause = random(60);
      using ref = kind.remote(random(3) === 0 ? new Uint8Array(random(130_000)) : input);
      const settled = ref.get().then(
        () => 'value' as const,
        (error) => (error.code === 'TASK_CANCELLED' ? ('cancelled' as const) : ('failed' as const)),
      );
      await sleep(pause);
      await cancel(ref, { force });
      outcomes[await settled] += 1;
    });
    await Promise.all(calls);
  }
  t.is(outcomes.value + outcomes.cancelled + outcomes.failed, 1_000);
  t.true(outcomes.cancelled > 0 && outcomes.value > 0, JSON.stringify(outcomes));
  await idle();
  input[Symbol.dispose]();
  await storeIsEmpty();
  t.is(
    await remote(() => 1)
      .remote()
      .get(),
    1,
  );
});
