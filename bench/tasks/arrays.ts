/** An array of references passed to a task, which reads them all: ten times as many should take ten times as long. */
import { get, init, type ObjectRef, put, remote, shutdown } from 'heliostat';
import { median } from '../report.ts';
import { type Add, plain, withGoal } from './figures.ts';
import { collect, count, expect } from './sizes.ts';

const ROUNDS = count(5, 2);
const FEW = count(10_000, 1_000);
const MANY = FEW * 10;
/** Caches grow cold and collections longer; twice the time for a reference is more than that. */
const LINEAR = 1.5;

const gather = remote(async function gather(refs: ObjectRef<number>[]) {
  return (await get(refs)).reduce((all, value) => all + value, 0);
});

/** Microseconds for each reference: in the call alone, and until the result is there. */
async function passed(length: number): Promise<{ call: number; whole: number }> {
  const refs = Array.from({ length }, (_, i) => put(i));
  await collect();
  const started = performance.now();
  const result = gather.remote(refs);
  const called = performance.now();
  expect('the sum', await result.get(), (length * (length - 1)) / 2);
  const ended = performance.now();
  return { call: ((called - started) * 1000) / length, whole: ((ended - started) * 1000) / length };
}

export async function measure(add: Add): Promise<void> {
  await init({ numCpus: 2 });
  await passed(FEW);
  const few: { call: number; whole: number }[] = [];
  const many: typeof few = [];
  for (let i = 0; i < ROUNDS; i++) {
    few.push(await passed(FEW));
    many.push(await passed(MANY));
  }
  await shutdown();
  const of = (rounds: typeof few, part: 'call' | 'whole') => median(rounds.map((round) => round[part]));
  for (const [length, rounds] of [
    [FEW, few],
    [MANY, many],
  ] as const) {
    add(plain(`a reference of ${length} passed and gathered`, of(rounds, 'whole'), 'µs'));
    add(plain('  of that in the call', of(rounds, 'call'), 'µs'));
  }
  const growth = { name: `time for a reference, of ${MANY} over of ${FEW}`, unit: '×', better: 'less' } as const;
  add(withGoal({ ...growth, measured: of(many, 'whole') / of(few, 'whole') }, LINEAR, 'linear: near 1'));
}
