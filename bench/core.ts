/** The price of a call and of a stored object, at several sizes. */
import { get, init, put, remote, shutdown } from 'heliostat';
import { median, Report, summary, timeEach } from './report.ts';

const KIB = 1024;
const SIZES: [name: string, bytes: number, runs: number][] = [
  ['100 B', 100, 2000],
  ['1 KiB', KIB, 2000],
  ['10 KiB', 10 * KIB, 2000],
  ['100 KiB', 100 * KIB, 1000],
  ['1 MiB', KIB * KIB, 300],
  ['100 MiB', 100 * KIB * KIB, 12],
];

const report = new Report('Calls and objects, microseconds');
const noop = remote(function noop() {});

const [first] = await timeEach(
  1,
  async () => {
    await init();
    await noop.remote().get();
  },
  0,
);
report.add({ name: 'init() and the first task', p50: first as number });

report.add({ name: 'empty task, one at a time', ...summary(await timeEach(2000, () => noop.remote().get())) });

const batches = await timeEach(20, () => get(Array.from({ length: 1000 }, () => noop.remote())));
report.add({
  name: 'empty tasks, 1,000 in flight',
  p50: median(batches) / 1000,
  'per second': 1000 / (median(batches) / 1e6),
});

const closures = await timeEach(50, (captured = performance.now()) =>
  remote(() => captured)
    .remote()
    .get(),
);
report.add({ name: 'first call of a closure', ...summary(closures) });

for (const [name, bytes, runs] of SIZES) {
  const value = new Uint8Array(bytes).fill(7);
  const speed = (times: readonly number[]) => ({ 'MB/s': bytes / median(times) });
  const puts: number[] = [];
  const gets: number[] = [];
  for (let i = 0; i < runs; i++) {
    const [putTime, ref] = timed(() => put(value));
    using stored = ref;
    puts.push(putTime);
    gets.push(...(await timeEach(1, () => stored.get(), 0)));
  }
  report.add({ name: `put, ${name}`, ...summary(puts), ...speed(puts) });
  report.add({ name: `get, ${name}`, ...summary(gets) });
}

await shutdown();
report.finish();

function timed<T>(call: () => T): [microseconds: number, result: T] {
  const started = performance.now();
  const result = call();
  return [(performance.now() - started) * 1000, result];
}
