import test from 'ava';
import { free, get, getNamed, getRuntimeContext, put, remote, state, TaskError, TaskTimeoutError } from 'heliostat';
import { eventually, storeIsEmpty, withCluster, workerPids } from './support/cluster.js';

withCluster(test);

class Flaky extends Error {}

test('an error of a listed class is tried again, and others are not', async (t) => {
  const flaky = remote(
    (until: number, kind: string) => {
      const { attempt } = getRuntimeContext();
      if (attempt >= until) return attempt;
      if (kind === 'own') throw new Flaky(`attempt ${attempt}`);
      if (kind === 'builtin') throw new RangeError(`attempt ${attempt}`);
      throw new TypeError(`attempt ${attempt}`);
    },
    { retryExceptions: [RangeError, Flaky] },
  );
  t.is(await flaky.remote(2, 'own').get(), 2);
  t.is(await flaky.remote(3, 'builtin').get(), 3);
  const error = await t.throwsAsync(flaky.remote(1, 'other').get(), { instanceOf: TaskError });
  t.is(error.attempt, 0);
  const last = await t.throwsAsync(flaky.options({ maxRetries: 1 }).remote(5, 'own').get(), { instanceOf: TaskError });
  t.is(last.attempt, 1);
  t.regex(last.message, /attempt 1$/);
  t.is(await flaky.options({ retryExceptions: true, maxRetries: -1 }).remote(5, 'other').get(), 5);
  for (const retryExceptions of [false, []])
    await t.throwsAsync(flaky.options({ retryExceptions }).remote(1, 'own').get(), { instanceOf: TaskError });
});

test('a subclass of a listed class counts, and an error of another realm by its name', async (t) => {
  const odd = remote(
    async (kind: string) => {
      const { attempt } = getRuntimeContext();
      if (attempt > 0) return attempt;
      if (kind === 'subclass') throw Object.assign(new (class Narrow extends RangeError {})('narrow'));
      const { runInNewContext } = await import('node:vm');
      return runInNewContext("throw new RangeError('elsewhere')") as number;
    },
    { retryExceptions: [RangeError] },
  );
  t.is(await odd.remote('subclass').get(), 1);
  t.is(await odd.remote('realm').get(), 1);
});

test('references and large values inside of what failed attempts threw leave nothing', async (t) => {
  const heavy = remote(
    () => {
      const { attempt } = getRuntimeContext();
      if (attempt === 2) return new Uint8Array(200_000).fill(attempt);
      throw Object.assign(new Error('heavy'), { ref: put(new Uint8Array(300_000)), data: new Uint8Array(200_000) });
    },
    { retryExceptions: true },
  );
  {
    using ref = heavy.remote();
    t.is((await ref.get())[1], 2);
  }
  t.pass();
});

test('bad options are refused at the call', (t) => {
  t.throws(() => remote(() => 1, { timeoutMs: -1 }), { instanceOf: RangeError, message: /timeoutMs/ });
  t.throws(() => remote(() => 1, { retryExceptions: 'all' as never }), {
    instanceOf: TypeError,
    message: /retryExceptions/,
  });
  t.throws(() => remote(() => 1, { retryExceptions: [() => 1] as never }), { instanceOf: TypeError, message: /\[0\]/ });
  t.throws(() => remote(() => 1, { signal: {} as never }), { instanceOf: TypeError, message: /signal/ });
});

test.serial('an asynchronous task that takes too long sees its signal abort, and its worker lives on', async (t) => {
  const slow = remote(
    async () => {
      const { signal } = getRuntimeContext();
      await new Promise((resolve) => signal.addEventListener('abort', resolve));
      put([process.pid, signal.reason.code], { name: 'why' });
    },
    { timeoutMs: 50 },
  );
  const error = await t.throwsAsync(slow.remote().get(), { instanceOf: TaskTimeoutError, code: 'TASK_TIMEOUT' });
  t.regex(error.message, /\(\) ran longer than 50 ms/);
  const why = await eventually('what it was told', () => getNamed<[number, string]>('why').catch(() => undefined));
  const [pid, code] = await why.get();
  free(why);
  t.is(code, 'TASK_TIMEOUT');
  await eventually('idle workers', async () => (await state.listWorkers()).every((w) => w.state === 'idle'));
  t.true((await workerPids()).includes(pid));
});

test.serial('a busy loop times out: its worker is replaced, and tasks behind it are not harmed', async (t) => {
  const quick = remote((x: number) => x + 1, { maxRetries: 0 });
  await get(Array.from({ length: 300 }, (_, i) => quick.remote(i)));
  const before = await workerPids();
  const loop = remote(
    (): number => {
      for (;;);
    },
    { timeoutMs: 50 },
  );
  const loops = [loop.remote(), loop.remote()];
  const others = Array.from({ length: 200 }, (_, i) => quick.remote(i));
  for (const ref of loops) await t.throwsAsync(ref.get(), { instanceOf: TaskTimeoutError });
  t.deepEqual(
    await get(others),
    others.map((_, i) => i + 1),
  );
  await eventually('the end of the workers that loop', async () => {
    const now = await workerPids();
    return before.some((pid) => !now.includes(pid));
  });
});

test.serial('a timeout is tried again only where the option says so', async (t) => {
  const slow = remote(
    async (ms: number) => {
      const { attempt } = getRuntimeContext();
      if (attempt < 1) await new Promise((resolve) => setTimeout(resolve, ms));
      return attempt;
    },
    { timeoutMs: 100, maxRetries: 2 },
  );
  await t.throwsAsync(slow.remote(60_000).get(), { instanceOf: TaskTimeoutError });
  await t.throwsAsync(
    slow
      .options({ retryExceptions: [RangeError] })
      .remote(60_000)
      .get(),
    {
      instanceOf: TaskTimeoutError,
    },
  );
  for (const retryExceptions of [[TaskTimeoutError], true])
    t.is(await slow.options({ retryExceptions, timeoutMs: 2_000 }).remote(60_000).get(), 1);
});

test.serial('the queue does not count', async (t) => {
  const nap = remote(
    async (ms: number) => {
      await new Promise((resolve) => setTimeout(resolve, ms));
      return ms;
    },
    { timeoutMs: 5_000 },
  );
  // Together they take longer than each of them may.
  t.is((await get(Array.from({ length: 24 }, () => nap.remote(500)))).length, 24);
});

test.serial('what timed out leaves nothing', async (t) => {
  const late = remote(
    async (_argument: Uint8Array) => {
      await new Promise((resolve) => setTimeout(resolve, 400));
      return new Uint8Array(400_000);
    },
    { timeoutMs: 50 },
  );
  for (let i = 0; i < 3; i += 1)
    await t.throwsAsync(late.remote(new Uint8Array(200_000)).get(), { instanceOf: TaskTimeoutError });
  await storeIsEmpty();
  await eventually('idle workers', async () => (await state.listWorkers()).every((w) => w.state === 'idle'));
  t.deepEqual((await state.memory()).pins, 0);
});
