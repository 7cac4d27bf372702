import { execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, read, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { allocate, type Draft, get, getRange, locate, put, remote, state, wait } from 'heliostat';
import { collectGarbage, eventually, storeIsEmpty, withCluster, workerPids } from './support/cluster.js';

withCluster(test);

test.serial('a draft is filled in place and sealed without a copy', async (t) => {
  const draft = allocate(Float64Array, 100_000);
  const { view } = draft;
  t.true(view instanceof Float64Array && view.length === 100_000 && view.every((x) => x === 0));
  for (let i = 0; i < view.length; i += 1) view[i] = i;
  const before = (await state.memory()).used;
  const ref = draft.seal();
  t.is((await state.memory()).used, before, 'sealing takes no memory');
  t.is(view.length, 0, 'the view is detached');
  t.throws(() => draft.view, { instanceOf: TypeError });
  t.throws(() => void draft.seal(), { instanceOf: TypeError });
  const value = await get(ref);
  t.true(value instanceof Float64Array && value.length === 100_000 && value.every((x, i) => x === i));
  t.is(
    await remote((array: Float64Array) => array[99_999])
      .remote(ref)
      .get(),
    99_999,
  );
});

test('small and empty drafts are objects like others', async (t) => {
  for (const length of [0, 1, 1000]) {
    using draft = allocate(Int16Array, length);
    draft.view.fill(7);
    t.deepEqual(await get(draft.seal()), new Int16Array(length).fill(7));
  }
});

test('every kind of typed array can be drafted', async (t) => {
  const kinds = [
    Int8Array,
    Uint8Array,
    Uint8ClampedArray,
    Int16Array,
    Uint16Array,
    Int32Array,
    Uint32Array,
    Float32Array,
    Float64Array,
  ] as const;
  for (const kind of kinds) {
    const draft = allocate(kind as typeof Uint8Array, 70_000);
    draft.view.fill(3);
    const value = await get(draft.seal());
    t.true(value.constructor === kind && value.length === 70_000 && value[69_999] === 3, kind.name);
  }
  const big = allocate(BigInt64Array, 20_000);
  big.view.fill(5n);
  t.is((await get(big.seal()))[19_999], 5n);
});

test('a task may return a draft, alone or inside a value', async (t) => {
  const alone = remote((n: number) => {
    const draft = allocate(Float32Array, n);
    draft.view.fill(1.5);
    return draft;
  });
  const value: Float32Array = await alone.remote(50_000).get();
  t.true(value.length === 50_000 && value.every((x) => x === 1.5));
  const tensor = remote((n: number) => {
    const data = allocate(Float32Array, n);
    data.view.fill(2.5);
    return { shape: [n], data };
  });
  const { shape, data } = await tensor.remote(60_000).get();
  t.deepEqual(shape, [60_000]);
  t.true(data instanceof Float32Array && data.length === 60_000 && data.every((x) => x === 2.5));
});

test.serial('a draft that a worker returned outlives the worker', async (t) => {
  const fill = remote((n: number) => {
    const data = allocate(Float32Array, n);
    data.view.fill(3.5);
    return { pid: process.pid, data };
  });
  await (async () => {
    const ref = fill.remote(100_000);
    // Its value is there, and this process has not looked at it.
    t.is((await wait([ref])).ready.length, 1);
    const pids = await workerPids();
    for (const pid of pids) process.kill(pid, 'SIGKILL');
    await eventually('the end of the workers', async () => !(await workerPids()).some((pid) => pids.includes(pid)));
    t.true((await state.memory()).objects > 0);
    const { pid, data } = await ref.get();
    t.true(pids.includes(pid), 'the task did not run again');
    t.true(data instanceof Float32Array && data.length === 100_000 && data.every((x) => x === 3.5));
  })();
});

test('drafts inside a value that is put are sealed with it', async (t) => {
  const one = { data: allocate(Uint8Array, 200_000), name: 'one' };
  one.data.view.fill(1);
  const { view } = one.data;
  t.true((await get(put(one))).data.every((x) => x === 1));
  t.is(view.length, 0);
  const two = [allocate(Uint8Array, 100_000), allocate(Uint8Array, 100_000), 'text'] as const;
  two[0].view.fill(1);
  two[1].view.fill(2);
  const [a, b, text] = (await get(put(two))) as unknown as [Uint8Array, Uint8Array, string];
  t.true(a.every((x) => x === 1) && b.every((x) => x === 2) && text === 'text');
});

test('a value too long for the page before a draft is stored all the same', async (t) => {
  const data = allocate(Uint8Array, 150_000);
  data.view.fill(9);
  const value = await get(put({ text: 'x'.repeat(10_000), data }));
  t.is(value.text.length, 10_000);
  t.true(value.data.every((x) => x === 9));
});

test('a draft whose buffer was transferred cannot be sealed', async (t) => {
  const draft = allocate(Uint8Array, 100_000);
  const buffer = draft.view.buffer as ArrayBuffer & { transfer?(): ArrayBuffer };
  if (buffer.transfer !== undefined) {
    t.is(buffer.transfer().byteLength, 100_000);
    t.throws(() => void draft.seal(), { instanceOf: TypeError, message: /transferred/ });
    return;
  }
  // Before Node 22 the only way is a message, which copies such buffers and leaves them where they are.
  const copy = new Uint8Array(structuredClone(buffer, { transfer: [buffer] }));
  const ref = draft.seal();
  copy[0] = 1;
  t.is((await get(ref))[0], 0);
});

test('a read that is still in flight when its draft is sealed writes nothing into the object', async (t) => {
  const pipe = join(mkdtempSync(join(tmpdir(), 'heliostat-test-')), 'pipe');
  execFileSync('mkfifo', [pipe]);
  const fd = openSync(pipe, 'r+');
  const draft = allocate(Uint8Array, 100_000);
  draft.view.fill(1);
  const done = new Promise<string>((resolve) => {
    read(fd, draft.view, 0, 16, null, (error, count) => resolve(error?.code ?? `read ${count}`));
  });
  // The read waits in the kernel with the buffer's address.
  await new Promise((resolve) => setTimeout(resolve, 100));
  const ref = draft.seal();
  writeSync(fd, Buffer.alloc(16, 7));
  t.is(await done, 'EFAULT');
  closeSync(fd);
  t.true((await get(ref)).every((x) => x === 1));
});

test('wrong types and lengths are refused', (t) => {
  t.throws(() => allocate(Array as never, 1), { instanceOf: TypeError });
  t.throws(() => allocate(Uint8Array, -1), { instanceOf: RangeError });
  t.throws(() => allocate(Uint8Array, 1.5), { instanceOf: RangeError });
  t.throws(() => allocate(Float64Array, 2 ** 29 + 1), { instanceOf: RangeError });
});

test('getRange of a drafted object gives its bytes', async (t) => {
  const draft = allocate(Uint8Array, 300_000);
  draft.view.set([1, 2, 3], 299_997);
  t.deepEqual([...(await getRange(draft.seal(), 299_996, 300_000))], [0, 1, 2, 3]);
});

test.serial('drafts that are dropped or collected give their memory back', async (t) => {
  {
    using dropped: Draft<Uint8Array> = allocate(Uint8Array, 1_000_000);
    dropped.view.fill(1);
    const { view } = dropped;
    dropped[Symbol.dispose]();
    t.is(view.length, 0);
  }
  (() => {
    for (let i = 0; i < 5; i += 1) allocate(Uint8Array, 1_000_000).view.fill(i);
  })();
  await storeIsEmpty();
  const again = allocate(Uint8Array, 1_000_000);
  t.true(
    again.view.every((x) => x === 0),
    'recycled memory is zeroed',
  );
  again[Symbol.dispose]();
  await eventually('the memory', async () => {
    await collectGarbage();
    return (await state.memory()).used === 0;
  });
  t.is((await locate(put(1))).state, 'inline');
});
