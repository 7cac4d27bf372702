import { appendFileSync, existsSync, mkdtempSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { allocate, get, ObjectRef, ObjectRefGenerator, put, remote, SerializationError, state, wait } from 'heliostat';
import { eventually, storeIsEmpty, withCluster } from '../support/cluster.js';

withCluster(test, { numCpus: 3 });

const count = remote(function* count(n: number) {
  for (let i = 0; i < n; i += 1) yield i;
});
const countLater = remote(async function* countLater(n: number) {
  for (let i = 0; i < n; i += 1) {
    await new Promise((resolve) => setImmediate(resolve));
    yield i;
  }
});

const path = () => join(mkdtempSync(join(tmpdir(), 'heliostat-test-')), 'file');

for (const [kind, numbers] of [
  ['synchronous', count],
  ['asynchronous', countLater],
] as const) {
  test(`the items of a ${kind} generator come in order, each a reference`, async (t) => {
    const generator = numbers.remote(100);
    t.true(generator instanceof ObjectRefGenerator);
    t.regex(String(generator), /^ObjectRefGenerator\([0-9a-f]{48}\)$/);
    const seen: number[] = [];
    const ids: string[] = [];
    for await (const ref of generator) {
      t.true(ref instanceof ObjectRef);
      ids.push(ref.id);
      seen.push(await ref.get());
    }
    t.deepEqual(
      seen,
      Array.from({ length: 100 }, (_, i) => i),
    );
    const [task] = /[0-9a-f]{48}/.exec(String(generator)) ?? [];
    t.deepEqual(
      ids,
      seen.map((i) => `${task}${(i + 1).toString(16).padStart(8, '0')}`),
    );
    t.deepEqual(await generator.next(), { done: true, value: undefined });
    t.is(await generator.completed.get(), undefined);
    t.is(generator.completed.id, `${task}00000000`);
  });

  test(`values() of a ${kind} generator gives the values themselves`, async (t) => {
    const seen: number[] = [];
    for await (const value of numbers.remote(40).values()) seen.push(value);
    t.deepEqual(
      seen,
      Array.from({ length: 40 }, (_, i) => i),
    );
    for await (const value of numbers.remote(0).values()) t.fail(`${value}`);
  });
}

test('an item is used while its maker goes on: read, waited for, given to tasks, sent inside values', async (t) => {
  const go = path();
  const slow = remote(async function* slow() {
    yield 20;
    while (!existsSync(go)) await sleep(5);
    yield 1;
  });
  const generator = slow.remote();
  const { value: ref } = await generator.next();
  if (ref === undefined) return t.fail();
  t.is(await ref.get(), 20);
  t.deepEqual((await wait([ref])).ready, [ref]);
  t.is(
    await remote((x: number) => x + 1)
      .remote(ref)
      .get(),
    21,
  );
  t.is(
    await remote(async ({ inner }: { inner: ObjectRef<number> }) => (await inner.get()) + 2)
      .remote({ inner: ref })
      .get(),
    22,
  );
  t.is(
    await put([ref])
      .get()
      .then(([inner]) => inner?.get()),
    20,
  );
  t.deepEqual((await wait([generator.completed], { timeoutMs: 0 })).ready, [], 'the maker has not ended');
  appendFileSync(go, '');
  t.is(await (await generator.next()).value?.get(), 1);
  t.true((await generator.next()).done);
});

test('next() called ahead is answered in order', async (t) => {
  const generator = countLater.remote(5);
  const results = await Promise.all(Array.from({ length: 7 }, () => generator.next()));
  t.deepEqual(
    results.map(({ done }) => done),
    [false, false, false, false, false, true, true],
  );
  t.deepEqual(await get(results.slice(0, 5).map(({ value }) => value as ObjectRef<number>)), [0, 1, 2, 3, 4]);
});

test('items of every kind arrive as results do', async (t) => {
  const mixed = remote(function* mixed(): Generator<unknown> {
    yield undefined;
    yield null;
    yield 'text';
    yield { date: new Date(5), map: new Map([[1, new Set(['a'])]]) };
    yield (x: number) => x * 2;
    yield new Uint8Array(1000).fill(3);
  });
  const items: unknown[] = [];
  for await (const item of mixed.remote().values()) items.push(item);
  t.deepEqual(items.slice(0, 4), [undefined, null, 'text', { date: new Date(5), map: new Map([[1, new Set(['a'])]]) }]);
  t.is((items[4] as (x: number) => number)(4), 8);
  t.deepEqual(items[5], new Uint8Array(1000).fill(3));
});

test.serial('large items lie in the store, are read without a copy, and go one by one', async (t) => {
  const length = 2_000_000;
  await storeIsEmpty();
  const { copied } = await state.memory();
  const arrays = remote(function* arrays(n: number) {
    for (let i = 0; i < n; i += 1) {
      const draft = allocate(Uint8Array, 2_000_000);
      draft.view.fill(i);
      yield draft;
    }
  });
  // Of 200 MB three arrays are there at a time. In a function of its own, so that nothing of them is held afterwards.
  const read = async () => {
    let seen = 0;
    for await (const ref of arrays.options({ bufferedItems: 2 }).remote(100)) {
      const array = (await ref.get()) as unknown as Uint8Array;
      t.is(array.length, length);
      t.true(array[0] === seen && array[length - 1] === seen);
      ref[Symbol.dispose]();
      seen += 1;
    }
    return seen;
  };
  t.is(await read(), 100);
  t.is((await state.memory()).copied, copied, 'what was filled in place is never copied');
  await storeIsEmpty();
});

test('an item that is a reference stays one, whoever made its object', async (t) => {
  const mine = put('mine');
  const refs = remote(function* refs(given: { ref: ObjectRef<string> }) {
    yield given.ref;
    yield put('made by the task');
    yield [put('inside')];
  });
  const items: unknown[] = [];
  for await (const item of refs.remote({ ref: mine }).values()) items.push(item);
  t.true(mine.equals(items[0] as ObjectRef));
  t.deepEqual(await get(items.slice(0, 2) as ObjectRef[]), ['mine', 'made by the task']);
  t.is(await (items[2] as ObjectRef[])[0]?.get(), 'inside');
});

test('a task takes the items of another one, and streams what it makes of them', async (t) => {
  const squares = remote(async function* squares(n: number) {
    for await (const value of count.remote(n).values()) yield value * value;
  });
  let sum = 0;
  for await (const value of squares.remote(50).values()) sum += value;
  t.is(sum, 40_425);
});

test('a remote generator travels with its options, and streams there', async (t) => {
  const two = count.options({ bufferedItems: 2, name: 'two' });
  const sum = remote(async (f: typeof two) => {
    let total = 0;
    for await (const value of f.remote(10).values()) total += value;
    return total;
  });
  t.is(await sum.remote(two).get(), 45);
});

test('references among the arguments arrive dereferenced, and are waited for', async (t) => {
  const later = remote(() => new Promise<number>((resolve) => setTimeout(resolve, 50, 3))).remote();
  const seen: number[] = [];
  for await (const value of count.remote(later).values()) seen.push(value);
  t.deepEqual(seen, [0, 1, 2]);
});

test('a generator cannot be sent, nor copied', async (t) => {
  const generator = count.remote(3);
  const refused = { instanceOf: SerializationError, message: /ObjectRefGenerator, which has one consumer/ };
  const error = t.throws(() => put({ deep: [generator] }), refused);
  t.is(error?.path, '$.deep[0]');
  t.truthy(error?.hint);
  t.throws(() => remote((g: unknown) => g).remote(generator as unknown), refused);
  await t.throwsAsync(
    remote(() => ({ inner: count.remote(1) }))
      .remote()
      .get(),
    refused,
  );
  t.throws(() => JSON.stringify({ generator }), { code: 'OUT_OF_BAND_REF', message: /ObjectRefGenerator/ });
  t.throws(() => structuredClone(generator), { code: 'OUT_OF_BAND_REF', message: /ObjectRefGenerator/ });
  t.throws(() => new (ObjectRefGenerator as unknown as new () => unknown)(), { instanceOf: TypeError });
  t.is((await generator.next()).done, false, 'it is as it was');
});

test('streaming: true streams what a plain function returns, false asks for one value', async (t) => {
  const all = async (f: { remote(): unknown }) => {
    const values: unknown[] = [];
    for await (const value of (f.remote() as ObjectRefGenerator).values()) values.push(value);
    return values;
  };
  const streams = { streaming: true } as const;
  t.deepEqual(await all(remote(() => [1, 2, 3].values(), streams)), [1, 2, 3]);
  t.deepEqual(await all(remote(() => new Set(['a', 'b']), streams)), ['a', 'b']);
  t.deepEqual(await all(remote(async () => [4, 5], streams)), [4, 5]);
  const counted = remote(() => {
    let n = 0;
    return { next: async () => ({ done: n === 3, value: n++ }) };
  }, streams);
  t.deepEqual(await all(counted), [0, 1, 2]);
  const { completed } = remote(() => 5, streams).remote() as unknown as ObjectRefGenerator;
  await t.throwsAsync(completed.get(), {
    code: 'TASK_FAILED',
    message: /must return an iterator, but returned number/,
  });
  for (const plain of [
    remote(() => [1, 2].values()),
    remote(() => ({ next: () => ({ done: true, value: 1 }), [Symbol.iterator]: () => [][Symbol.iterator]() })),
    count.options({ streaming: false }),
    countLater.options({ streaming: false }),
  ] as { remote(n?: number): unknown }[]) {
    const ref = plain.remote(3) as ObjectRef;
    t.true(ref instanceof ObjectRef);
    const error = await t.throwsAsync(ref.get(), { instanceOf: SerializationError, message: /iterator/ });
    t.regex((error as SerializationError).hint ?? '', /streaming: true/);
  }
  t.throws(() => count.options({ numReturns: 2 }).remote(3), { instanceOf: TypeError, message: /numReturns/ });
});

test('every copy of the package in a thread knows the same generators', (t) => {
  const require = createRequire(import.meta.url);
  const { ObjectRefGenerator: required } = require('heliostat') as typeof import('heliostat');
  t.is(required, ObjectRefGenerator);
  const file = require.resolve('heliostat');
  const before = { ...require.cache };
  for (const key of Object.keys(require.cache)) if (key.includes('/dist/')) delete require.cache[key];
  const copy = require(file) as typeof import('heliostat');
  Object.assign(require.cache, before);
  t.not(copy.ObjectRefGenerator, ObjectRefGenerator);
  const generator = count.remote(1);
  t.true(generator instanceof copy.ObjectRefGenerator);
  t.throws(() => copy.put(generator), { code: 'SERIALIZATION', message: /one consumer/ });
});

test.serial('items that nobody took, or that were let go of, leave nothing', async (t) => {
  const arrays = remote(function* arrays() {
    for (let i = 0; i < 10; i += 1) yield new Uint8Array(300_000);
  });
  await (async () => {
    const generator = arrays.remote();
    await generator.next();
    await eventually('items in the store', async () => (await state.memory()).objects >= 5);
  })();
  await storeIsEmpty();
  t.pass();
});

test('whoever takes what is there does not starve timers', async (t) => {
  let ticks = 0;
  const timer = setInterval(() => (ticks += 1), 1);
  let items = 0;
  for await (const ref of count.options({ bufferedItems: 1000 }).remote(20_000)) {
    items += 1;
    ref[Symbol.dispose]();
  }
  clearInterval(timer);
  t.is(items, 20_000);
  t.true(ticks > 0);
});

test('the journal of a maker: each item is made once', async (t) => {
  const journal = path();
  const noted = remote(function* noted() {
    for (let i = 0; i < 30; i += 1) {
      appendFileSync(journal, `${i}\n`);
      yield i;
    }
  });
  const values: number[] = [];
  for await (const value of noted.remote().values()) values.push(value);
  t.deepEqual(readFileSync(journal, 'utf8').trim().split('\n').map(Number), values);
});
