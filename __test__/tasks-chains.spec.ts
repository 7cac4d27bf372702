/** Tasks of which each takes the last one's result, submitted before the first has ended. */
import test from 'ava';
import { cancel, get, type ObjectRef, put, remote, TaskCancelledError, TaskError } from 'heliostat';
import { storeIsEmpty, withCluster } from './support/cluster.js';

withCluster(test);

const next = remote((value: number) => value + 1);

/** Short tasks are sent ahead once it is known that they are short. */
test.serial.before(async () => {
  for (let round = 0; round < 20; round++) await next.remote(round).get();
});

function chain(first: ObjectRef<number> | number, length: number): ObjectRef<number>[] {
  const refs = [next.remote(first)];
  while (refs.length < length) refs.push(next.remote(refs.at(-1) as ObjectRef<number>));
  return refs;
}

test('each task of a long chain gets the value before it', async (t) => {
  const refs = chain(0, 3_000);
  t.deepEqual(
    await get(refs),
    Array.from({ length: 3_000 }, (_, index) => index + 1),
  );
});

test('a chain whose middle references were disposed ends', async (t) => {
  const refs = chain(put(5), 500);
  for (const ref of refs.slice(0, -1)) ref[Symbol.dispose]();
  t.is(await (refs.at(-1) as ObjectRef<number>).get(), 505);
});

test('results in the store follow each other too, and go when nobody needs them', async (t) => {
  const grow = remote((bytes: Uint8Array) => new Uint8Array(bytes.length).fill((bytes[0] as number) + 1));
  await grow.remote(new Uint8Array(10)).get();
  let last = grow.remote(new Uint8Array(300_000));
  for (let hop = 0; hop < 20; hop++) {
    const after = grow.remote(last);
    last[Symbol.dispose]();
    last = after;
  }
  t.true((await last.get()).every((byte) => byte === 21));
  last[Symbol.dispose]();
  await storeIsEmpty();
});

test('several arguments, some of them there already', async (t) => {
  const add = remote((a: number, b: number, c: number) => a + b + c);
  await add.remote(1, 2, 3).get();
  const three = put(3);
  const [one, two] = [next.remote(0), next.remote(1)];
  t.is(await add.remote(one, three, two).get(), 6);
  t.is(await add.remote(one, add.remote(one, one, 1), two).get(), 6);
});

test('references inside results arrive in the task that follows', async (t) => {
  const wrap = remote((value: number) => ({ ref: put(value) }));
  const unwrap = remote(async ({ ref }: { ref: ObjectRef<number> }) => (await ref.get()) + 1);
  await unwrap.remote(wrap.remote(0)).get();
  for (let round = 0; round < 20; round++) t.is(await unwrap.remote(wrap.remote(round)).get(), round + 1);
});

test('a failure in the middle ends all that follow, which do not run', async (t) => {
  const fail = remote((value: number): number => {
    throw new RangeError(`no ${value}`);
  });
  await t.throwsAsync(fail.remote(0).get());
  const before = chain(0, 10);
  const failed = fail.remote(before.at(-1) as ObjectRef<number>);
  const after = chain(failed, 200);
  t.is(await (before.at(-1) as ObjectRef<number>).get(), 10);
  for (const ref of [failed, after[0], after[100], after[199]]) {
    const error = await t.throwsAsync((ref as ObjectRef<number>).get(), { instanceOf: TaskError });
    t.regex(String(error?.message), /RangeError: no 10/);
  }
});

test('cancelling a task in the middle ends all that follow, whatever runs', async (t) => {
  for (let round = 0; round < 20; round++) {
    const refs = chain(0, 50);
    await cancel(refs[25] as ObjectRef<number>);
    const results = await Promise.allSettled(refs.map((ref) => ref.get()));
    const ended = results.findIndex(({ status }) => status === 'rejected');
    // The cancel may have come too late for this one, but never for half of the rest.
    if (ended === -1) continue;
    t.true(ended >= 25, `the task before it ended with ${(results[ended] as PromiseRejectedResult).reason}`);
    for (const result of results.slice(ended)) {
      t.true(result.status === 'rejected' && result.reason instanceof TaskCancelledError);
    }
  }
});
