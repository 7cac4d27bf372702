/** What a live reference costs: its time, and its memory in the process and in V8's heap, without the place in the program's array. */
import { getHeapStatistics } from 'node:v8';
import { init, type ObjectRef, put, shutdown } from 'heliostat';
import { type Add, plain, withGoal } from './figures.ts';
import { pss } from './processes.ts';
import { collect, count, expect } from './sizes.ts';

const REFERENCES = count(1_000_000, 10_000);
const SAMPLES = 1_000;
const BYTES_GOAL = 200;
const MICROSECONDS_GOAL = 1;

async function held(): Promise<{ pss: number; heap: number }> {
  await collect();
  return { pss: pss('self'), heap: getHeapStatistics().used_heap_size };
}

export async function measure(add: Add): Promise<void> {
  await init();
  // What the first puts load and compile is not the price of a reference.
  for (let i = 0; i < 1_000; i++) put(i)[Symbol.dispose]();
  const refs = new Array<ObjectRef<number> | undefined>(REFERENCES).fill(undefined);

  const before = await held();
  const started = performance.now();
  for (let i = 0; i < REFERENCES; i++) refs[i] = put(i);
  const microseconds = ((performance.now() - started) * 1000) / REFERENCES;
  const after = await held();
  for (let i = 0; i < REFERENCES; i += Math.ceil(REFERENCES / SAMPLES)) {
    expect('a value', await (refs[i] as ObjectRef<number>).get(), i);
  }

  const processes = (after.pss - before.pss) / REFERENCES;
  const heap = (after.heap - before.heap) / REFERENCES;
  const bytes = { name: `a live reference of ${REFERENCES}, PSS and V8 heap`, measured: processes + heap, unit: 'B' };
  add(withGoal({ ...bytes, better: 'less' }, BYTES_GOAL, 'the sum of the next two; PSS has the heap in it already'));
  add(plain('  PSS', processes, 'B'));
  add(plain('  V8 heap', heap, 'B'));
  const time = { name: `a put of a number, of ${REFERENCES}`, measured: microseconds, unit: 'µs' };
  add(withGoal({ ...time, better: 'less' }, MICROSECONDS_GOAL));

  refs.fill(undefined);
  const given = await held();
  add(plain('PSS left of a reference after collection', (given.pss - before.pss) / REFERENCES, 'B'));
  await shutdown();
}
