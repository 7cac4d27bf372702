/** Many references at once: waited for one by one, found inside a value, as arguments of one task and as its results. */
import { get, init, type ObjectRef, put, remote, shutdown, wait } from 'heliostat';
import { median } from '../report.ts';
import { type Add, published, RAY, withGoal } from './figures.ts';
import { collect, count, expect, LONG } from './sizes.ts';

const ROUNDS = count(7, 2);
const WAITED = count(1_000, 100);
const CONTAINED = count(10_000, 1_000);
const ARGUMENTS = count(10_000, 1_000);
const RETURNS = count(3_000, 300);
/** 50 times what Ray publishes. */
const WAIT_GOAL = 50 * 5.2;
const CONTAINED_GOAL = 50 * 13.4;
/** Ray's arguments and results are lists of so many numbers. */
const LIST = 10_000;

const echo = remote(function echo(value: number) {
  return value;
});
const makeRefs = remote(function makeRefs(length: number) {
  return Array.from({ length }, (_, i) => put(i));
});
const sum = remote(function sum(...lists: number[][]) {
  return lists.reduce((all, list) => all + list.reduce((part, value) => part + value, 0), 0);
});
const lists = remote(function lists(count: number, length: number) {
  return Array.from({ length: count }, (_, i) => new Array<number>(length).fill(i));
});

/** The median of the rounds, in milliseconds; what is prepared for a round doesn't count. */
async function rounds<T>(prepare: () => T | Promise<T>, walk: (prepared: T) => Promise<void>): Promise<number> {
  const times: number[] = [];
  for (let i = 0; i <= ROUNDS; i++) {
    const prepared = await prepare();
    await collect();
    const started = performance.now();
    await walk(prepared);
    // The first one is to warm up.
    if (i > 0) times.push(performance.now() - started);
  }
  return median(times);
}

const submit = () => Array.from({ length: WAITED }, (_, i) => echo.remote(i));

async function popOneByOne(refs: ObjectRef<number>[]): Promise<void> {
  const all = new Set<ObjectRef<number>>();
  for (let left = refs; left.length > 0; ) {
    const { ready, pending } = await wait(left);
    expect('ready references', ready.length, 1);
    expect('pending references', pending.length, left.length - 1);
    all.add(ready[0] as ObjectRef<number>);
    left = pending;
  }
  expect('references that were ready', all.size, refs.length);
}

async function waits(add: Add): Promise<void> {
  const times = { unit: '/s', better: 'more' } as const;
  const whole = 1000 / (await rounds(collect, () => popOneByOne(submit())));
  add(withGoal({ name: `wait on ${WAITED} tasks one by one, as Ray measures`, measured: whole, ...times }, WAIT_GOAL));
  add(published(RAY.wait, whole));
  const alone = await rounds(async () => {
    const refs = submit();
    for (const [i, value] of (await get(refs)).entries()) expect('a value', value, i);
    return refs;
  }, popOneByOne);
  add(withGoal({ name: `wait on ${WAITED} finished tasks one by one`, measured: 1000 / alone, ...times }, WAIT_GOAL));
}

async function contained(add: Add): Promise<void> {
  for (const [owner, ref] of [
    ['a worker', makeRefs.remote(CONTAINED)],
    ['this process', put(Array.from({ length: CONTAINED }, (_, i) => put(i)))],
  ] as const) {
    const last = (await ref.get()).at(-1) as ObjectRef<number>;
    expect('the last reference', await last.get(), CONTAINED - 1);
    const time = await rounds(
      () => undefined,
      async () => expect('references', (await ref.get()).length, CONTAINED),
    );
    const name = `get of an object with ${CONTAINED} references of ${owner}`;
    add(withGoal({ name, measured: 1000 / time, unit: '/s', better: 'more' }, CONTAINED_GOAL));
    if (owner === 'a worker') add(published(RAY.containing, 1000 / time));
  }
}

async function argumentsAndReturns(add: Add, length: number): Promise<void> {
  const of = length === 1 ? '' : ` of ${length} numbers each`;
  const taken = await rounds(
    () => Array.from({ length: ARGUMENTS }, () => put(new Array<number>(length).fill(1))),
    async (refs) => expect('the sum', await sum.remote(...refs).get(), ARGUMENTS * length),
  );
  const takes = { name: `a task with ${ARGUMENTS} references as arguments${of}`, measured: taken / 1000 };
  add(withGoal({ ...takes, unit: 's', better: 'less' }, 1));
  add(published(RAY.arguments, taken / 1000));

  const split = lists.options({ numReturns: RETURNS });
  const made = await rounds(
    () => undefined,
    async () => {
      const results = split.remote(RETURNS, length);
      for (const [i, list] of (await get(results)).entries()) {
        expect('length of a result', list.length, length);
        expect('a result', list[length - 1], i);
      }
    },
  );
  const makes = { name: `a task with ${RETURNS} results${of}`, measured: made / 1000 };
  add(withGoal({ ...makes, unit: 's', better: 'less' }, 1));
  add(published(RAY.returns, made / 1000));
}

export async function measure(add: Add): Promise<void> {
  await init({ numCpus: 2 });
  await waits(add);
  await contained(add);
  await argumentsAndReturns(add, 1);
  if (LONG) await argumentsAndReturns(add, LIST);
  await shutdown();
}
