import test from 'ava';
import { allocate, get, type ObjectRef, ObjectStoreFullError, put, putAsync, remote, state, wait } from 'heliostat';
import { collectGarbage, eventually, storeIsEmpty, withCluster } from './support/cluster.js';

const MIB = 1 << 20;

withCluster(test, { objectSpilling: false, putTimeoutMs: 60_000 });

test.serial('ten thousand puts in a synchronous loop live on what the loop itself drops', async (t) => {
  let last: unknown;
  for (let round = 0; round < 10_000; round += 1) last = put(new Float64Array(131_072));
  t.truthy(last);
  last = undefined;
  await storeIsEmpty();
});

test.serial('where nobody can make room the error names who holds it', async (t) => {
  const refs = Array.from({ length: 24 }, (_, index) => put(new Uint8Array(10 * MIB).fill(index)));
  const error = t.throws(() => put(new Uint8Array(30 * MIB)), { instanceOf: ObjectStoreFullError });
  t.is(error.code, 'OBJECT_STORE_FULL');
  t.regex(error.message, new RegExp(`spilling is off.*biggest holders: pid ${process.pid} owns 24 objects`));
  t.regex(String(error.hint), /using.*putAsync/);
  t.regex(
    error.message,
    /of pid \d+: 24 of 2517\d+ bytes from .*full-store\.spec\.ts:\d+:\d+/,
    'and where they were made',
  );
  t.is((await get(refs[7] as (typeof refs)[0]))[0], 7, 'nothing was lost');
  refs.length = 0;
  await storeIsEmpty();
});

test.serial(
  'the error says where another process made what it holds, and where tasks and drafts were asked for',
  async (t) => {
    const hoard = remote(function hoard() {
      // The place is known while a reference lives where it was made.
      const refs = Array.from({ length: 8 }, () => put(new Uint8Array(10 << 20)));
      (globalThis as { hoarded?: ObjectRef[] }).hoarded = refs;
      return refs;
    });
    const hoarded = await get(hoard.remote());
    const result = remote(() => new Uint8Array(50 << 20)).remote();
    await wait([result]);
    const draft = allocate(Uint8Array, 60 * MIB).seal();
    const error = await t.throwsAsync(putAsync(new Uint8Array(100 * MIB), { timeoutMs: 100 }), {
      instanceOf: ObjectStoreFullError,
    });
    const message = String(error?.message);
    t.regex(
      message,
      /pid \d+ owns 8 objects of 839\d+ bytes, the largest \d+ \(8 of \d+ bytes from .*full-store\.spec\.ts/,
    );
    t.regex(
      message,
      new RegExp(`of pid ${process.pid}: 1 of 62\\d+ bytes from .*full-store.spec.ts:\\d+:\\d+\\)?; 1 of 52`),
    );
    for (const each of [...hoarded, result, draft]) each[Symbol.dispose]();
    const forget = remote(() => {
      delete (globalThis as { hoarded?: ObjectRef[] }).hoarded;
      return process.pid;
    });
    // Whichever worker it was.
    await eventually('an empty store', async () => {
      await forget.remote().get();
      await collectGarbage();
      return (await state.memory()).objects === 0;
    });
  },
);

test.serial('what can never fit is refused at once', (t) => {
  t.throws(() => put(new Uint8Array(300 * MIB)), { instanceOf: ObjectStoreFullError, message: /can't fit a store/ });
});

test.serial('putAsync waits while the event loop goes on, and gets the room that this program makes', async (t) => {
  const held = Array.from({ length: 24 }, (_, index) => put(new Uint8Array(10 * MIB).fill(index)));
  const waits = putAsync(new Uint8Array(100 * MIB).fill(5));
  let turns = 0;
  for (; turns < 20; turns += 1) await new Promise((resolve) => setTimeout(resolve, 5));
  t.deepEqual(await Promise.race([waits, 'pending']), 'pending');
  for (const ref of held.splice(0, 15)) ref[Symbol.dispose]();
  const ref = await waits;
  t.is((await get(ref))[0], 5);
  ref[Symbol.dispose]();
  held.length = 0;
  await storeIsEmpty();
});

test.serial('putAsync gives up after its time, and on its signal', async (t) => {
  const held = Array.from({ length: 24 }, () => put(new Uint8Array(10 * MIB)));
  const error = await t.throwsAsync(putAsync(new Uint8Array(100 * MIB), { timeoutMs: 300 }), {
    instanceOf: ObjectStoreFullError,
  });
  t.regex(String(error?.message), /biggest holders/);
  const controller = new AbortController();
  const aborted = putAsync(new Uint8Array(100 * MIB), { signal: controller.signal });
  setTimeout(() => controller.abort(new Error('enough')), 50);
  await t.throwsAsync(aborted, { message: 'enough' });
  held.length = 0;
  await storeIsEmpty();
});

test.serial('a put of a task waits for what its driver lets go of', async (t) => {
  const held = Array.from({ length: 24 }, () => put(new Uint8Array(10 * MIB)));
  const make = remote((mib: number) => new Uint8Array(mib << 20).fill(9));
  const result = make.remote(100);
  const { ready } = await wait([result], { timeoutMs: 500 });
  t.deepEqual(ready, []);
  for (const ref of held.splice(0, 15)) ref[Symbol.dispose]();
  t.is((await get(result))[0], 9);
  held.length = 0;
  result[Symbol.dispose]();
  await storeIsEmpty();
});

test.serial('others are asked to let go of what only their garbage holds', async (t) => {
  // The worker reads most of the store and drops it: nothing but a collection there lets it go.
  const big = put(new Uint8Array(200 * MIB).fill(3));
  const read = remote((array: Uint8Array) => array[array.length - 1]);
  t.is(await read.remote(big).get(), 3);
  big[Symbol.dispose]();
  const next = put(new Uint8Array(200 * MIB).fill(4));
  t.is((await get(next))[0], 4);
  next[Symbol.dispose]();
  await storeIsEmpty();
});

test.serial('a worker that is killed while it waits for room leaves nothing, and others go on', async (t) => {
  const held = Array.from({ length: 24 }, () => put(new Uint8Array(10 * MIB)));
  const stuck = remote((mib: number) => new Uint8Array(mib << 20), { maxRetries: 0 });
  for (let round = 0; round < 3; round += 1) {
    const result = stuck.remote(100);
    const pid = await eventually('a busy worker', async () => {
      const busy = (await state.listWorkers()).filter((worker) => worker.state === 'busy');
      return busy[0]?.pid;
    });
    await new Promise((resolve) => setTimeout(resolve, 100 * round));
    process.kill(pid, 'SIGKILL');
    await t.throwsAsync(get(result));
    result[Symbol.dispose]();
  }
  for (const ref of held.splice(0, 15)) ref[Symbol.dispose]();
  put(new Uint8Array(100 * MIB))[Symbol.dispose]();
  held.length = 0;
  await storeIsEmpty();
});

test.serial('inline values are capped, and what is beyond goes to the store', async (t) => {
  const before = await state.memory();
  // A tenth of the store is 25.6 MiB.
  const refs = Array.from({ length: 600 }, (_, index) => put(new Uint8Array(90 * 1024).fill(index)));
  const { objects, inline } = await state.memory();
  t.true(inline <= (256 * MIB) / 10 && inline > 20 * MIB, `${inline} bytes inline`);
  t.true(objects > before.objects + 200, `${objects} in the store`);
  for (const [index, ref] of refs.entries()) t.is((await get(ref))[9], index & 255);
  for (const ref of refs) ref[Symbol.dispose]();
  await storeIsEmpty();
  t.is((await state.memory()).inline, 0);
});

test.serial('results that arrive inline beyond the cap go to the store, with the references inside', async (t) => {
  const make = remote((index: number) => ({ bytes: new Uint8Array(90 * 1024).fill(index), ref: put([index]) }));
  const refs = Array.from({ length: 600 }, (_, index) => make.remote(index));
  await wait(refs, { numReturns: refs.length });
  await eventually('no more than the cap', async () => (await state.memory()).inline <= (256 * MIB) / 10);
  t.true((await state.memory()).objects > 200);
  for (const [index, ref] of refs.entries()) {
    const { bytes, ref: inner } = await get(ref);
    t.is(bytes.length, 90 * 1024);
    t.true(bytes.every((byte) => byte === (index & 255)));
    t.deepEqual(await get(inner), [index]);
    inner[Symbol.dispose]();
    ref[Symbol.dispose]();
  }
  await storeIsEmpty();
  await eventually('nothing inline', async () => (await state.memory()).inline === 0);
});
