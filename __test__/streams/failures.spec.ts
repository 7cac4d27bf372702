import test from 'ava';
import {
  get,
  getRuntimeContext,
  isHeliostatError,
  type ObjectRef,
  ObjectStoreFullError,
  remote,
  SerializationError,
  TaskError,
} from 'heliostat';
import { collectGarbage, eventually, withCluster } from '../support/cluster.js';

withCluster(test, { objectStoreMemory: 64 << 20, objectSpilling: false });

for (const [kind, maker] of Object.entries({
  synchronous: remote(function* failing(n: number) {
    for (let i = 0; i < n; i += 1) yield i;
    throw new RangeError('after all');
  }),
  asynchronous: remote(async function* failing(n: number) {
    for (let i = 0; i < n; i += 1) yield i;
    throw new RangeError('after all');
  }),
})) {
  test(`a ${kind} generator that throws: its items, then one reference whose get throws, then the end`, async (t) => {
    for (const n of [0, 1, 30]) {
      const generator = maker.remote(n);
      const refs: ObjectRef<number>[] = [];
      for await (const ref of generator) refs.push(ref);
      t.is(refs.length, n + 1);
      t.deepEqual(
        await get(refs.slice(0, n)),
        Array.from({ length: n }, (_, i) => i),
      );
      const [last, end] = await Promise.all(
        [refs[n] as ObjectRef, generator.completed].map((ref) => t.throwsAsync(ref.get(), { instanceOf: TaskError })),
      );
      t.regex(last?.message ?? '', /failing\(\) failed .*RangeError: after all/);
      t.true((last as TaskError).cause instanceof RangeError);
      t.regex(last?.stack ?? '', /failures\.spec\.ts[\s\S]*at remote call[\s\S]*failures\.spec\.ts/);
      t.is(end?.message, last?.message);
      t.true((await generator.next()).done);
    }
  });
}

test('values() throws what the maker threw, after the values before', async (t) => {
  const failing = remote(function* failing() {
    yield 1;
    yield 2;
    throw new RangeError('third');
  });
  const seen: number[] = [];
  await t.throwsAsync(
    async () => {
      for await (const value of failing.remote().values()) seen.push(value);
    },
    { instanceOf: TaskError, message: /third/ },
  );
  t.deepEqual(seen, [1, 2]);
});

test('an item that cannot be sent ends the stream with its path, and the finally blocks run', async (t) => {
  const unsendable = remote(function* unsendable() {
    try {
      yield 1;
      yield { deep: { promise: Promise.resolve(1) } };
      yield 3;
    } finally {
      console.log('finally');
    }
  });
  const refs: ObjectRef[] = [];
  for await (const ref of unsendable.remote()) refs.push(ref);
  t.is(refs.length, 2);
  t.is(await (refs[0] as ObjectRef).get(), 1);
  const error = await t.throwsAsync((refs[1] as ObjectRef).get(), { instanceOf: SerializationError });
  t.is((error as SerializationError).path, '$.deep.promise');
  const promises = remote(function* promises() {
    yield Promise.resolve(1);
  });
  const { value } = await promises.remote().next();
  const refused = await t.throwsAsync(value?.get() as Promise<unknown>, { instanceOf: SerializationError });
  t.regex((refused as SerializationError).hint ?? '', /async generator/);
});

test('an asynchronous generator awaits what it yields', async (t) => {
  const later = remote(async function* later() {
    yield Promise.resolve(5);
  });
  t.is(await (await later.remote().next()).value?.get(), 5);
});

test('an item too large for the store fails the stream, not the worker', async (t) => {
  const huge = remote(function* huge() {
    yield 'small';
    yield new Uint8Array(100 << 20);
  });
  const refs: ObjectRef[] = [];
  for await (const ref of huge.remote()) refs.push(ref as ObjectRef);
  t.is(await (refs[0] as ObjectRef).get(), 'small');
  const error = await t.throwsAsync((refs[1] as ObjectRef).get());
  t.true(isHeliostatError(error));
  t.true(((error as TaskError).cause ?? error) instanceof ObjectStoreFullError, `${error}`);
});

test('a failing argument fails the stream without a run', async (t) => {
  const broken = remote((): number => {
    throw new RangeError('before');
  }).remote();
  const generator = remote(function* never(n: number) {
    yield n;
  }).remote(broken);
  const { value } = await generator.next();
  await t.throwsAsync(value?.get() as Promise<number>, { instanceOf: TaskError, message: /depends on failed.*before/ });
  await t.throwsAsync(generator.completed.get(), { instanceOf: TaskError });
  t.true((await generator.next()).done);
});

test('retryExceptions: the stream goes on where it was', async (t) => {
  const flaky = remote(
    function* flaky() {
      for (let i = 0; i < 20; i += 1) {
        if (i === 5 + 5 * getRuntimeContext().attempt && i < 20) throw new RangeError(`attempt ${i}`);
        yield { i };
      }
    },
    { retryExceptions: [RangeError], maxRetries: 3 },
  );
  const seen: number[] = [];
  for await (const { i } of flaky.remote().values()) seen.push(i);
  t.deepEqual(
    seen,
    Array.from({ length: 20 }, (_, i) => i),
  );
  const once = flaky.options({ maxRetries: 1 }).remote();
  let items = 0;
  await t.throwsAsync(
    async () => {
      for await (const _ of once.values()) items += 1;
    },
    { instanceOf: TaskError, message: /attempt 10/ },
  );
  t.is(items, 10, 'what the first run made is there');
});

test.serial('a failure that nobody read is told once', async (t) => {
  const told: string[] = [];
  const listener = (_error: Error, name: string) => told.push(name);
  (process as NodeJS.EventEmitter).on('heliostat:unobserved', listener);
  t.teardown(() => (process as NodeJS.EventEmitter).off('heliostat:unobserved', listener));
  const failing = (name: string) =>
    remote(
      function* () {
        yield 1;
        throw new RangeError('unread');
      },
      { name },
    );
  // Reading one of the two references is enough.
  await (async () => {
    const generator = failing('read by its end').remote();
    await t.throwsAsync(generator.completed.get());
  })();
  await (async () => {
    await t.throwsAsync(async () => {
      for await (const _ of failing('read by its last item').remote().values());
    });
  })();
  await (async () => {
    for await (const _ of failing('not read').remote());
  })();
  await eventually('what was not read', async () => {
    await collectGarbage();
    return told.length > 0;
  });
  await collectGarbage();
  t.deepEqual(told, ['not read']);
});
