/** Tasks of which each takes the last one's result: submitted at once, against each submitted when the last is there. */
import { init, type ObjectRef, put, remote, shutdown } from 'heliostat';
import { median } from '../report.ts';
import { type Add, plain, withGoal } from './figures.ts';
import { collect, count, expect } from './sizes.ts';

const ROUNDS = count(9, 2);
const HOPS = count(1_000, 100);

const next = remote(function next(value: number) {
  return value + 1;
});

async function atOnce(): Promise<number> {
  let last: ObjectRef<number> = put(0);
  for (let i = 0; i < HOPS; i++) last = next.remote(last);
  return await last.get();
}

async function singly(): Promise<number> {
  let last = 0;
  for (let i = 0; i < HOPS; i++) last = await next.remote(last).get();
  return last;
}

async function perHop(walk: () => Promise<number>): Promise<number> {
  await collect();
  const started = performance.now();
  expect('the end of the chain', await walk(), HOPS);
  return ((performance.now() - started) * 1000) / HOPS;
}

export async function measure(add: Add): Promise<void> {
  await init({ numCpus: 2 });
  const once: number[] = [];
  const each: number[] = [];
  await singly();
  for (let i = 0; i < ROUNDS; i++) {
    each.push(await perHop(singly));
    once.push(await perHop(atOnce));
  }
  await shutdown();
  add(plain('a hop of a chain, each awaited', median(each), 'µs'));
  add(
    withGoal(
      { name: `a hop of a chain of ${HOPS}, submitted at once`, measured: median(once), unit: 'µs', better: 'less' },
      median(each) / 2,
      'goal: half of one awaited',
    ),
  );
}
