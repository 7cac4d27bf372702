import { appendFileSync, mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { type ObjectRef, remote, state } from 'heliostat';
import { eventually, withCluster } from '../support/cluster.js';

// One CPU: a maker that waits for room must not keep it.
withCluster(test, { numCpus: 1 });

function journal(): string {
  const file = join(mkdtempSync(join(tmpdir(), 'heliostat-test-')), 'journal');
  appendFileSync(file, '');
  return file;
}
const lines = (file: string) => readFileSync(file, 'utf8').split('\n').length - 1;

const makers = {
  synchronous: remote(function* made(file: string, n = 1_000_000) {
    for (let i = 0; i < n; i += 1) {
      appendFileSync(file, '.\n');
      yield i;
    }
  }),
  asynchronous: remote(async function* made(file: string, n = 1_000_000) {
    for (let i = 0; i < n; i += 1) {
      await null;
      appendFileSync(file, '.\n');
      yield i;
    }
  }),
};
/** Long enough for a maker that goes on to be seen. */
const settled = () => sleep(100);

for (const [kind, maker] of Object.entries(makers)) {
  for (const bufferedItems of [undefined, 1, 2, 5, 300]) {
    const room = bufferedItems ?? 16;
    test.serial(
      `bufferedItems: ${bufferedItems} of a ${kind} generator: ${room} are made ahead, never more`,
      async (t) => {
        const file = journal();
        await using generator = maker.options({ bufferedItems }).remote(file);
        for (let taken = 0; taken < 12; taken += 1) {
          await eventually(`all that there is room for after ${taken}`, () => lines(file) === taken + room);
          if (taken % 6 === 0) {
            await settled();
            t.is(lines(file), taken + room);
          }
          const { value: ref } = await generator.next();
          t.is(await ref?.get(), taken);
        }
      },
    );

    test.serial(
      `bufferedItems: ${bufferedItems} of a ${kind} generator: a fast taker never sees it further ahead`,
      async (t) => {
        const file = journal();
        let taken = 0;
        let most = 0;
        for await (const ref of maker.options({ bufferedItems }).remote(file, 500)) {
          // The one that next() just returned is taken.
          taken += 1;
          if (taken % 10 === 0) most = Math.max(most, lines(file) - taken);
          ref[Symbol.dispose]();
        }
        t.is(taken, 500);
        t.true(most <= room, `${most} ahead`);
      },
    );
  }

  test.serial(`a ${kind} maker that waits for room lends its CPU`, async (t) => {
    const file = journal();
    await using generator = maker.options({ bufferedItems: 1 }).remote(file);
    await eventually('a full stream', () => lines(file) === 1);
    // Each item is read by a task, which needs the one CPU.
    const inTask = remote((value: number) => value + 1);
    for (let i = 0; i < 5; i += 1) {
      const { value: ref } = await generator.next();
      t.is(await inTask.remote(ref as ObjectRef<number>).get(), i + 1);
    }
    t.true((await state.listWorkers()).length > 1);
  });
}

test.serial('a chain of streams, each of which waits for the next, runs on one CPU', async (t) => {
  const numbers = remote(function* numbers(n: number) {
    for (let i = 1; i <= n; i += 1) yield i;
  });
  const doubled = remote(async function* doubled(n: number) {
    for await (const value of numbers.options({ bufferedItems: 1 }).remote(n).values()) yield value * 2;
  });
  const summed = remote(async function* summed(n: number) {
    let sum = 0;
    for await (const value of doubled.options({ bufferedItems: 2 }).remote(n).values()) {
      sum += value;
      yield sum;
    }
  });
  let last = 0;
  for await (const value of summed.options({ bufferedItems: 1 }).remote(100).values()) last = value;
  t.is(last, 10_100);
});

test('bufferedItems is a whole number of at least 1', (t) => {
  for (const bufferedItems of [0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY])
    t.throws(() => makers.synchronous.options({ bufferedItems }), { instanceOf: RangeError, message: /bufferedItems/ });
  t.throws(() => remote(function* () {}, { bufferedItems: '2' as never }), { instanceOf: TypeError });
  t.notThrows(() => makers.synchronous.options({ bufferedItems: Number.MAX_SAFE_INTEGER }));
});
