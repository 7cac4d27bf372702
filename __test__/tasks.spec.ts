import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import {
  get,
  getRuntimeContext,
  getSync,
  isHeliostatError,
  type ObjectRef,
  OwnerDiedError,
  put,
  remote,
  SerializationError,
  state,
  TaskError,
  UnschedulableError,
  WorkerCrashedError,
} from 'heliostat';
import { eventually, storeIsEmpty, withCluster, workerPids } from './support/cluster.js';

withCluster(test);

const add = remote((a: number, b: number) => a + b);
const identity = remote((value: unknown) => value);

test('values and top-level references arrive as values, nested references as references', async (t) => {
  const ref = put(20);
  t.is(await add.remote(ref, 22).get(), 42);
  t.is(await add.remote(add.remote(1, 2), add.remote(ref, 4)).get(), 27);
  const kinds = remote((plain: number, nested: { ref: unknown }, list: unknown[]) => [
    typeof plain,
    String(nested.ref),
    String(list[0]),
  ]);
  t.deepEqual(await kinds.remote(ref, { ref }, [ref]).get(), [
    'number',
    `ObjectRef(${ref.id})`,
    `ObjectRef(${ref.id})`,
  ]);
});

test('a large argument and a large result go through the store without copies of the reader', async (t) => {
  const input = put(new Float64Array(500_000).fill(2));
  const double = remote((array: Float64Array) => array.map((x) => x * 2));
  const output = await double.remote(input).get();
  t.true(output instanceof Float64Array && output.length === 500_000 && output.every((x) => x === 4));
});

test('a captured constant travels with the function', async (t) => {
  const factor = 7;
  const table = new Map([['a', 1]]);
  t.is(
    await remote((x: number) => x * factor + (table.get('a') ?? 0))
      .remote(6)
      .get(),
    43,
  );
});

test('a task reads references that it holds, and makes tasks of its own', async (t) => {
  const ref = put({ n: 5 });
  const nested = remote(async (box: { ref: ObjectRef<{ n: number }> }) => {
    const { n } = await get(box.ref);
    const inner = remote((x: number) => x * x);
    return get(inner.remote(n));
  });
  t.is(await nested.remote({ ref }).get(), 25);
});

test('more tasks wait for their own tasks than there are CPUs', async (t) => {
  const leaf = (x: number) => x + 1;
  const parent = remote(async (x: number) => get(remote(leaf).remote(x)));
  t.deepEqual(await get(Array.from({ length: 6 }, (_, i) => parent.remote(i))), [1, 2, 3, 4, 5, 6]);
});

test.serial('a reference that a task made is readable as long as its process lives', async (t) => {
  const maker = remote(() => ({ made: put(new Uint8Array(150_000).fill(3)), pid: process.pid }));
  const { made, pid } = await maker.remote().get();
  t.is((await get(made))[7], 3);
  process.kill(pid, 'SIGKILL');
  await eventually('the death of the owner', async () => !(await workerPids()).includes(pid));
  const again = await maker.remote().get();
  process.kill(again.pid, 'SIGKILL');
  await eventually('the next death', async () => !(await workerPids()).includes(again.pid));
  await t.throwsAsync(get(again.made), { instanceOf: OwnerDiedError });
});

test('what a task throws arrives with its class, its fields, its stack and the place of the call', async (t) => {
  const failing = remote(function failing(): never {
    throw Object.assign(new RangeError('too far', { cause: 'the map' }), { distance: 12 });
  });
  const error = await t.throwsAsync(failing.remote().get(), { instanceOf: TaskError, code: 'TASK_FAILED' });
  t.regex(error.message, /^failing\(\) failed \(pid=\d+, node=[0-9a-f]+\): RangeError: too far$/);
  const cause = error.cause as RangeError & { distance: number };
  t.true(cause instanceof RangeError);
  t.is(cause.cause, 'the map');
  t.is(cause.distance, 12);
  t.regex(error.stack ?? '', /tasks\.spec\.ts:\d+.*\n[\s\S]*remote call[\s\S]*tasks\.spec\.ts/);
  t.true(isHeliostatError(error, 'TASK_FAILED'));
});

test('odd throws survive', async (t) => {
  const thrower = remote((kind: string) => {
    if (kind === 'string') throw 'just text';
    if (kind === 'undefined') throw undefined;
    if (kind === 'frozen') throw Object.freeze(new Error('cold'));
    if (kind === 'cyclic') {
      const error = new Error('round') as Error & { self?: unknown };
      error.self = error;
      throw error;
    }
    throw new Error('with a promise', { cause: Promise.resolve() });
  });
  t.is((await t.throwsAsync(thrower.remote('string').get(), { instanceOf: TaskError })).cause, 'just text');
  t.is((await t.throwsAsync(thrower.remote('undefined').get(), { instanceOf: TaskError })).cause, undefined);
  t.is(((await t.throwsAsync(thrower.remote('frozen').get())).cause as Error).message, 'cold');
  const cyclic = (await t.throwsAsync(thrower.remote('cyclic').get())).cause as Error & { self?: unknown };
  t.is(cyclic.self, cyclic);
  const text = (await t.throwsAsync(thrower.remote('unsendable').get())).cause as Error;
  t.regex(text.message, /with a promise/);
});

test('a dependant of a failed task does not run', async (t) => {
  const failing = remote((): number => {
    throw new Error('first');
  });
  const error = await t.throwsAsync(add.remote(failing.remote(), 1).get(), { instanceOf: TaskError });
  t.regex((error.cause as Error).message, /first/);
});

test('the failure of the lowest index counts', async (t) => {
  const fail = remote(async (text: string, ms: number) => {
    await new Promise((resolve) => setTimeout(resolve, ms));
    throw new Error(text);
  });
  const refs = [fail.remote('a', 1), fail.remote('b', 1)];
  for (const ref of refs) await t.throwsAsync(ref.get());
  const error = await t.throwsAsync(get([put(1), ...refs]));
  t.regex(error.message, /Error: a$/);
});

test('numReturns splits the result', async (t) => {
  const pair = remote((n: number): [number, string] => [n, `${n}`]).options({ numReturns: 2 });
  const [n, s] = pair.remote(4);
  t.deepEqual(await get([s, n]), ['4', 4]);
  const [a, b, c] = remote(() => [1, 2])
    .options({ numReturns: 3 })
    .remote();
  for (const ref of [a, b, c])
    await t.throwsAsync(get(ref as ObjectRef), { instanceOf: TaskError, message: /array of 3/ });
});

test('what cannot be sent is refused at the call, or as the failure of the task', async (t) => {
  const error = t.throws(() => identity.remote({ deep: [new WeakMap()] }), { instanceOf: SerializationError });
  t.regex(error.path, /deep\[0\]$/);
  await t.throwsAsync(
    remote(() => ({ promise: [new WeakSet()] }))
      .remote()
      .get(),
    { instanceOf: SerializationError },
  );
});

test('a task knows where it runs', async (t) => {
  const here = getRuntimeContext();
  const there = await remote(
    () => {
      const { taskId, taskName, attempt, jobId, nodeId, workerId } = getRuntimeContext();
      return { taskId, taskName, attempt, jobId, nodeId, workerId };
    },
    { name: 'finder' },
  )
    .remote()
    .get();
  t.is(there.taskName, 'finder');
  t.is(there.jobId, here.jobId);
  t.is(there.nodeId, here.nodeId);
  t.not(there.workerId, here.workerId);
  t.is(there.attempt, 0);
  t.regex(there.taskId ?? '', /^[0-9a-f]{48}$/);
  t.is(here.taskId, null);
});

test('a remote function that is captured, passed or stored runs from inside a task', async (t) => {
  const twice = remote((x: number) => x * 2);
  t.is(
    await remote((x: number) => get(twice.remote(x)))
      .remote(4)
      .get(),
    8,
  );
  t.is(
    await remote((f: typeof twice, x: number) => get(f.remote(x)))
      .remote(twice as never, 5)
      .get(),
    10,
  );
  t.is(await (await get(put({ twice }))).twice.remote(6).get(), 12);
});

test('a thrown value with a method `then` is a cause like others', async (t) => {
  const odd = remote(() => {
    // biome-ignore lint/suspicious/noThenProperty: what the test is about
    throw { then() {}, mark: 1 };
  });
  const error = await t.throwsAsync(odd.remote().get(), { instanceOf: TaskError });
  t.is((error.cause as { mark: number }).mark, 1);
});

test('options merge, and an undefined one counts as omitted', async (t) => {
  const name = () => getRuntimeContext().taskName;
  const named = remote(name, { name: 'first' }).options({ maxRetries: 0 });
  t.is(await named.options({ name: undefined }).remote().get(), 'first');
  t.is(await named.options({ name: 'second' }).remote().get(), 'second');
});

test.serial('a worker outlives tasks that waited, with what they put', async (t) => {
  const dependency = put(1);
  const waiting = remote(async (box: { dependency: ObjectRef<number> }) => {
    await get(box.dependency);
    return { pid: process.pid, kept: put({ text: 'kept' }) };
  });
  const { pid, kept } = await waiting.remote({ dependency }).get();
  for (let turn = 0; turn < 5; turn += 1) {
    await sleep(20);
    t.true((await workerPids()).includes(pid));
  }
  t.deepEqual(await get(kept), { text: 'kept' });
});

test.serial('a task that was sent behind one which waits for it runs elsewhere', async (t) => {
  const quick = remote((x: number) => x + 1);
  const waiter = remote((refs: ObjectRef<number>[]) => get(refs));
  for (let round = 0; round < 5; round += 1) {
    // Tasks so short that many are sent ahead.
    await get(Array.from({ length: 300 }, (_, i) => quick.remote(i)));
    const second = quick.remote(quick.remote(round));
    t.deepEqual(await waiter.remote([second]).get(), [round + 2]);
    const third = quick.remote(quick.remote(round));
    t.deepEqual(
      await remote((refs: ObjectRef<number>[]) => getSync(refs))
        .remote([third])
        .get(),
      [round + 2],
    );
  }
});

test.serial('a blocking get beside a pending one keeps the CPU lent', async (t) => {
  const inner = remote((x: number) => x * 10);
  const both = remote(async (box: { f: typeof inner }) => {
    const pending = get(box.f.remote(1));
    await new Promise((resolve) => setTimeout(resolve, 20));
    const now = getSync(put(5));
    return [await pending, now];
  });
  t.deepEqual(await get([both.remote({ f: inner }), both.remote({ f: inner }), both.remote({ f: inner })]), [
    [10, 5],
    [10, 5],
    [10, 5],
  ]);
});

test.serial('references that are only garbage make room without a turn of the event loop', async (t) => {
  // 60 results and 60 puts of 20 MB in a store of 256 MB, none of them disposed.
  const make = remote((fill: number) => new Uint8Array(20 << 20).fill(fill));
  for (let i = 0; i < 30; i += 1) t.is((await get(make.remote(i)))[7], i);
  for (let i = 0; i < 30; i += 1) t.is(getSync(put(new Uint8Array(20 << 20).fill(i)))[7], i);
});

test('a request that can never be met is refused', async (t) => {
  const error = await t.throwsAsync(
    remote(() => 1, { numGpus: 1 })
      .remote()
      .get(),
    { instanceOf: UnschedulableError },
  );
  t.regex(error.message, /GPU/);
  await t.throwsAsync(
    remote(() => 1, { numCpus: 64 })
      .remote()
      .get(),
    { instanceOf: UnschedulableError },
  );
});

test.serial('a worker that dies is replaced, and its task tried again', async (t) => {
  const attempts = remote(() => {
    const { attempt } = getRuntimeContext();
    if (attempt < 2) process.kill(process.pid, 'SIGKILL');
    return attempt;
  });
  t.is(await attempts.remote().get(), 2);
});

test.serial('a task whose worker always dies fails with the facts of its end', async (t) => {
  const exits = remote(
    (code: number) => {
      console.error('about to leave');
      process.exit(code);
    },
    { maxRetries: 0 },
  );
  const exited = await t.throwsAsync(exits.remote(3).get(), { instanceOf: WorkerCrashedError, code: 'WORKER_CRASHED' });
  t.is(exited.exitCode, 3);
  t.is(exited.exitSignal, null);
  t.regex(exited.message, /about to leave/);
  const killed = await t.throwsAsync(
    remote(() => process.kill(process.pid, 'SIGKILL'), { maxRetries: 1 })
      .remote()
      .get(),
    { instanceOf: WorkerCrashedError },
  );
  t.is(killed.exitSignal, 'SIGKILL');
  t.is(killed.exitCode, null);
});

test.serial('innocent tasks beside a dying one end as they should', async (t) => {
  const poison = remote(() => process.exit(9), { maxRetries: 0 });
  const poisons = Array.from({ length: 3 }, () => poison.remote());
  const fine = Array.from({ length: 200 }, (_, i) => add.remote(i, 1));
  t.deepEqual(
    await get(fine),
    Array.from({ length: 200 }, (_, i) => i + 1),
  );
  for (const ref of poisons) await t.throwsAsync(ref.get(), { instanceOf: WorkerCrashedError });
});

test.serial('results that nobody takes, and arguments of ended tasks, give their memory back', async (t) => {
  const big = remote((n: number, _unused?: unknown) => new Uint8Array(n));
  for (let i = 0; i < 10; i += 1) big.remote(300_000, new Uint8Array(200_000));
  await get(big.remote(150_000));
  await storeIsEmpty();
  t.deepEqual((await state.memory()).pins, 0);
});

test.serial('what a function captured goes with it', async (t) => {
  const call = async (fill: number) => {
    const captured = new Uint8Array(2 << 20).fill(fill);
    return remote(() => captured[1])
      .remote()
      .get();
  };
  for (let i = 0; i < 20; i += 1) t.is(await call(i), i);
  await storeIsEmpty();
});

test.serial('idle leases go back', async (t) => {
  await add.remote(1, 2).get();
  const workers = await eventually('all workers idle', async () => {
    const all = await state.listWorkers();
    return all.every((worker) => worker.state === 'idle') ? all : undefined;
  });
  t.true(workers.length > 0);
});
