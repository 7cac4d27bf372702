import { inspect } from 'node:util';
import test from 'ava';
import {
  asCompleted,
  free,
  GetTimeoutError,
  get,
  getRange,
  getSync,
  locate,
  ObjectFreedError,
  ObjectRef,
  OutOfBandRefError,
  put,
  RefDisposedError,
  remote,
  SerializationError,
  wait,
} from 'heliostat';
import { storeIsEmpty, withCluster } from './support/cluster.js';

withCluster(test);

const sleepFor = remote((ms: number) => new Promise((resolve) => setTimeout(() => resolve(ms), ms)));

test('a value comes back equal, small or large', async (t) => {
  const small = { text: 'hello', list: [1, 2, { deep: new Map([['a', new Set([1n])]]) }], when: new Date(0) };
  const large = Float64Array.from({ length: 100_000 }, (_, i) => i / 3);
  t.deepEqual(await get(put(small)), small);
  t.deepEqual(await put(large).get(), large);
  t.is((await locate(put(small))).state, 'inline');
  t.is((await locate(put(large))).state, 'memory');
});

test('the inline limit decides where a value is', async (t) => {
  const { byteLength } = await locate(put(new Uint8Array(0)));
  t.true(byteLength > 0 && byteLength < 200);
  t.is((await locate(put(new Uint8Array(100 * 1024 - 300)))).state, 'inline');
  t.is((await locate(put(new Uint8Array(100 * 1024)))).state, 'memory');
});

test('get of several keeps the order, and allows the same reference twice', async (t) => {
  const refs = Array.from({ length: 20 }, (_, i) => put(i));
  t.deepEqual(
    await get(refs),
    Array.from({ length: 20 }, (_, i) => i),
  );
  const [first] = refs as [ObjectRef<number>];
  t.deepEqual(await get([first, first]), [0, 0]);
  t.deepEqual(await get([]), []);
  t.deepEqual(getSync(refs.slice(3, 5)), [3, 4]);
  t.is(getSync(first), 0);
});

test('a get that times out says what is missing', async (t) => {
  const slow = sleepFor.remote(1_500);
  const error = await t.throwsAsync(get([put(1), slow], { timeoutMs: 20 }), {
    instanceOf: GetTimeoutError,
    code: 'GET_TIMEOUT',
  });
  t.true(error?.message.includes(String(slow)));
  t.throws(() => getSync(slow, { timeoutMs: 5 }), { instanceOf: GetTimeoutError });
  await t.throwsAsync(get(slow, { timeoutMs: 0 }), { instanceOf: GetTimeoutError });
  t.is(await get(put(5), { timeoutMs: 0 }), 5, 'now is soon enough for what is there');
});

test('an aborted get rejects with the reason', async (t) => {
  const slow = sleepFor.remote(1_500);
  const reason = new Error('enough');
  const controller = new AbortController();
  const pending = get(slow, { signal: controller.signal });
  controller.abort(reason);
  t.is(await t.throwsAsync(pending), reason);
  t.is(await t.throwsAsync(get(slow, { signal: AbortSignal.abort(reason) })), reason);
});

test('an abort before the call counts, whether or not the value is there', async (t) => {
  const reason = new Error('before');
  t.is(await t.throwsAsync(get(put(1), { signal: AbortSignal.abort(reason) })), reason);
  t.is(await t.throwsAsync(wait([put(1)], { signal: AbortSignal.abort(reason) })), reason);
});

test('wait sees what became ready although its handle was disposed meanwhile', async (t) => {
  const slow = sleepFor.remote(150);
  const waiting = wait([slow]);
  slow[Symbol.dispose]();
  t.is((await waiting).ready.length, 1);
});

test('a value that a promise would take for a promise is refused', (t) => {
  // biome-ignore lint/suspicious/noThenProperty: what the test is about
  t.throws(() => void put({ then() {} }), { instanceOf: SerializationError, message: /then/ });
  // biome-ignore lint/suspicious/noThenProperty: what the test is about
  t.notThrows(() => void put([{ then() {} }]));
});

test('wait splits references into ready and pending, in their order', async (t) => {
  const refs = [sleepFor.remote(1_500), put(1), sleepFor.remote(1_500), put(2)];
  const one = await wait(refs);
  t.deepEqual(one.ready, [refs[1]]);
  t.deepEqual(one.pending, [refs[0], refs[2], refs[3]]);
  const two = await wait(refs, { numReturns: 3, timeoutMs: 10 });
  t.deepEqual(two.ready, [refs[1], refs[3]]);
  t.deepEqual(await wait([]), { ready: [], pending: [] });
  const twice = put(1);
  await t.throwsAsync(wait([twice, twice]), { instanceOf: TypeError });
  await t.throwsAsync(wait(refs, { numReturns: 5 }), { instanceOf: RangeError });
});

test('asCompleted yields each of many references once', async (t) => {
  const square = remote((value: number) => value * value);
  const refs = Array.from({ length: 100 }, (_, i) => (i % 3 === 0 ? put(i * i) : square.remote(i)));
  const seen = new Set<ObjectRef<number>>();
  for await (const ref of asCompleted(refs)) {
    t.false(seen.has(ref));
    seen.add(ref);
    t.is(await get(ref), refs.indexOf(ref) ** 2);
  }
  t.is(seen.size, refs.length);
});

test('asCompleted yields what is ready first', async (t) => {
  const slow = sleepFor.remote(200);
  const seen = [];
  for await (const ref of asCompleted([slow, put('a')])) seen.push(await get(ref));
  t.deepEqual(seen, ['a', 200]);
});

test('a reference shows its id, and refuses to be copied without being counted', (t) => {
  const ref = put(1);
  t.regex(ref.id, /^[0-9a-f]{56}$/);
  t.is(String(ref), `ObjectRef(${ref.id})`);
  t.is(inspect({ ref }, { breakLength: Infinity }), `{ ref: ObjectRef(${ref.id}) }`);
  t.throws(() => JSON.stringify({ ref }), { instanceOf: OutOfBandRefError });
  t.throws(() => structuredClone(ref), { instanceOf: OutOfBandRefError });
  t.throws(() => put(ref as never), { instanceOf: TypeError });
  t.throws(() => new (ObjectRef as unknown as new () => unknown)(), { instanceOf: TypeError });
  t.false('then' in ref);
});

test('references inside a value come back as references to the same objects', async (t) => {
  const inner = put(new Uint8Array(200_000).fill(7));
  const outer = put({ inner, list: [inner] });
  const value = await get(outer);
  t.true(value.inner.equals(inner));
  t.is((await value.list[0]?.get())?.[9], 7);
});

test('a disposed handle refuses, other handles of the object go on', async (t) => {
  const ref = put([1, 2]);
  const { copy } = await get(put({ copy: ref }));
  ref[Symbol.dispose]();
  ref[Symbol.dispose]();
  t.throws(() => get(ref), { instanceOf: RefDisposedError });
  t.throws(() => put({ ref }), { instanceOf: RefDisposedError });
  t.deepEqual(await get(copy), [1, 2]);
});

test('a get that has begun settles although its handle is disposed', async (t) => {
  const slow = sleepFor.remote(100);
  const pending = slow.get();
  slow[Symbol.dispose]();
  t.is(await pending, 100);
});

test('free deletes the data, views already held stay readable', async (t) => {
  const ref = put(new Float64Array(50_000).fill(4));
  const view = await get(ref);
  free(ref);
  await t.throwsAsync(get(ref), { instanceOf: ObjectFreedError });
  t.is(view[49_999], 4);
});

test('getRange reads a part', async (t) => {
  const ref = put(Uint8Array.from({ length: 300_000 }, (_, i) => i));
  t.deepEqual([...(await getRange(ref, 255, 258))], [255, 0, 1]);
  await t.throwsAsync(getRange(ref, 10, 300_001), { instanceOf: RangeError });
});

test('wrong options are refused at once, with their names', (t) => {
  const ref = put(1);
  t.throws(() => get(ref, { timeoutMs: -1 }), { instanceOf: RangeError, message: /timeoutMs/ });
  t.throws(() => get(ref, { timeoutMs: '5' as never }), { instanceOf: TypeError, message: /timeoutMs/ });
  t.throws(() => get(ref, { signal: {} as never }), { instanceOf: TypeError, message: /signal/ });
  t.throws(() => get('x' as never), { instanceOf: TypeError });
  t.throws(() => get([ref, 1] as never), { instanceOf: TypeError, message: /\[1\]/ });
});

/** In a function of its own, so that no register of the test keeps a view. */
async function putAndDrop(dispose: boolean): Promise<boolean> {
  const refs = Array.from({ length: 50 }, (_, i) => put(new Uint8Array(200_000).fill(i)));
  const views = await get(refs);
  if (dispose) for (const ref of refs) ref[Symbol.dispose]();
  return views.every((view, i) => view[0] === i && view.byteLength === 200_000);
}

test.serial('what nobody refers to gives its memory back', async (t) => {
  for (const dispose of [true, false]) {
    t.true(await putAndDrop(dispose));
    await storeIsEmpty();
  }
});
