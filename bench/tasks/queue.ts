/** Tasks that were all queued before the first could run: how fast they are drained, and what the driver holds meanwhile. */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { get, init, type ObjectRef, remote, shutdown } from 'heliostat';
import { type Add, plain, published, RAY, withGoal } from './figures.ts';
import { pause } from './processes.ts';
import { collect, count, expect, LONG } from './sizes.ts';

const TASKS = LONG ? 1_000_000 : count(100_000, 10_000);
const STEPS = 10;
const STEP = TASKS / STEPS;
const WORKERS = 2;
const MIB = 1024 * 1024;
/** CPUs held for longer are let go: a submission that waits for room is seen as slow, not as a hang. */
const GATE_MS = 300_000;
/** The last steps may not be slower than the first ones, but for what two steps differ by anyway. */
const STEADY = 0.9;

const echo = remote(function echo(value: number) {
  return value;
});
/** Takes all CPUs, says so, and keeps them until it is let go. */
const gate = remote(
  function gate(closed: string, open: string, limit: number) {
    writeFileSync(closed, '');
    const sleeper = new Int32Array(new SharedArrayBuffer(4));
    const until = Date.now() + limit;
    while (!existsSync(open) && Date.now() < until) Atomics.wait(sleeper, 0, 0, 5);
    return existsSync(open);
  },
  { numCpus: WORKERS },
);

const rss = () => process.memoryUsage.rss() / MIB;

export async function measure(add: Add): Promise<void> {
  await init({ numCpus: WORKERS });
  await get(Array.from({ length: 1_000 }, (_, i) => echo.remote(i)));
  await collect();
  const folder = mkdtempSync(join(tmpdir(), 'heliostat-bench-'));
  try {
    await drain(add, join(folder, 'closed'), join(folder, 'open'));
  } finally {
    rmSync(folder, { recursive: true });
  }
  await shutdown();
}

async function drain(add: Add, closed: string, open: string): Promise<void> {
  const held = gate.remote(closed, open, GATE_MS);
  while (!existsSync(closed)) await pause(5);
  const before = rss();
  const submitting = performance.now();
  const refs: (ObjectRef<number> | undefined)[] = [];
  for (let i = 0; i < TASKS; i++) refs.push(echo.remote(i));
  const submitted = (performance.now() - submitting) / 1000;
  const queued = rss();
  add({ ...plain(`submission of ${TASKS} tasks`, TASKS / submitted, '/s'), 'RSS MiB': queued });

  writeFileSync(open, '');
  const times: number[] = [];
  let peak = queued;
  const draining = performance.now();
  for (let step = 0; step < STEPS; step++) {
    const started = performance.now();
    const values = await get(refs.slice(step * STEP, (step + 1) * STEP) as ObjectRef<number>[]);
    times.push(performance.now() - started);
    for (const [i, value] of values.entries()) expect('a result', value, step * STEP + i);
    refs.fill(undefined, step * STEP, (step + 1) * STEP);
    peak = Math.max(peak, rss());
    const name = `  drained ${(step + 1) * STEP}`;
    add({ ...plain(name, (STEP * 1000) / (times.at(-1) as number), '/s'), 'RSS MiB': rss() });
  }
  const drained = (performance.now() - draining) / 1000;
  expect('whether the queue was full before it was drained', await held.get(), true);

  const sum = (values: number[]) => values.reduce((all, value) => all + value, 0);
  const steadiness = sum(times.slice(0, 3)) / sum(times.slice(-3));
  const rate = { name: 'rate of the last three steps over the first three', measured: steadiness, unit: '×' };
  add(withGoal({ ...rate, better: 'more' }, STEADY));
  add(plain('a queued task in the driver', ((queued - before) * MIB) / TASKS, 'B'));
  const growth = { name: 'largest RSS while draining over RSS when queued', measured: peak / queued, unit: '×' };
  add(withGoal({ ...growth, better: 'less' }, 1.25));
  const whole = { name: `${TASKS} tasks, submitted and drained`, measured: submitted + drained, unit: 's' };
  add(plain(whole.name, whole.measured, whole.unit));
  if (TASKS === 1_000_000) add(published(RAY.queued, whole.measured));
}
