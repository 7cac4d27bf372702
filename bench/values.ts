/**
 * Values: what they cost on their way through the codec and through the store, each beside the runtime's own way to send them,
 * in the same run.
 */
import { once } from 'node:events';
import v8 from 'node:v8';
import { Worker } from 'node:worker_threads';
import * as arrow from 'apache-arrow';
import { get, init, type ObjectRef, put, remote, shutdown } from 'heliostat';
import { Tensor } from 'heliostat/tensor';
import { decode, encode } from '../dist/values/index.cjs';
import { median, Report } from './report.ts';

const MB = 1e6;
const GB = 1e9;
const report = new Report('Values, microseconds');

/** Median of the time that `run` takes, in microseconds. */
async function time(rounds: number, run: () => unknown): Promise<number> {
  const times: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const started = performance.now();
    await run();
    times.push((performance.now() - started) * 1000);
  }
  return median(times);
}

/** A value to bytes and back, by this codec and by V8's: each takes turns, so that both meet the same machine. */
async function codec(name: string, value: unknown, repeats: number): Promise<void> {
  const ours = () => {
    for (let i = 0; i < repeats; i++) {
      const { header, buffers } = encode(value);
      decode({
        header: header.slice(),
        buffers: buffers.map(
          (view) => view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength) as ArrayBuffer,
        ),
        refs: () => ({}),
      });
    }
  };
  const theirs = () => {
    for (let i = 0; i < repeats; i++) v8.deserialize(v8.serialize(value));
  };
  for (let round = 0; round < 20; round++) {
    ours();
    theirs();
  }
  const [mine, v8s]: [number[], number[]] = [[], []];
  for (let round = 0; round < 15; round++) {
    mine.push((await time(1, ours)) / repeats);
    v8s.push((await time(1, theirs)) / repeats);
  }
  report.add({
    name,
    p50: median(mine),
    'v8.serialize + deserialize': median(v8s),
    'times as fast': median(v8s) / median(mine),
  });
}

const person = (i: number) => ({
  id: i,
  name: `person ${i}`,
  email: `p${i}@example.org`,
  active: i % 2 === 0,
  score: i / 3,
});
const nested = { kind: 'page', items: Array.from({ length: 100 }, (_, i) => ({ ...person(i), tags: ['a', 'b'] })) };
const node: { map: Map<string, unknown>; set: Set<unknown>; self?: unknown } = {
  map: new Map(Array.from({ length: 200 }, (_, i) => [`key ${i}`, { i }])),
  set: new Set(Array.from({ length: 200 }, (_, i) => i * 1.5)),
};
node.self = node;
node.map.set('self', node);

await codec('object of 100 B', person(7), 2000);
await codec('object of 10 KB', nested, 50);
await codec(
  '10,000 small objects',
  Array.from({ length: 10_000 }, (_, i) => person(i)),
  1,
);
await codec('Map, Set and a cycle', node, 20);
await codec('Map of 1,000 strings and numbers', new Map(Array.from({ length: 1000 }, (_, i) => [`key ${i}`, i])), 10);
await codec('Set of 1,000 strings', new Set(Array.from({ length: 1000 }, (_, i) => `item ${i}`)), 10);
const parent: { name: string; children: object[] } = { name: 'parent', children: [] };
for (let i = 0; i < 20; i++) parent.children.push({ parent, i });
await codec('20 objects that refer to their parent', parent, 100);
await codec('string of 1 MiB', 'abcdefgh'.repeat(2 ** 17), 3);

await init({ numCpus: 1, objectStoreMemory: 4 * GB });

const array = new Float64Array((100 * MB) / 8).fill(1.5);
const clones = new Worker(
  "require('worker_threads').parentPort.on('message', function (value) { this.postMessage(value); })",
  {
    eval: true,
  },
);
const cloned = await time(7, async () => {
  clones.postMessage(array);
  const [back] = (await once(clones, 'message')) as [Float64Array];
  if (back[5] !== 1.5) throw new Error('other contents');
});
await clones.terminate();
report.add({ name: '100 MB there and back, structured clone between threads', p50: cloned });

const echo = remote((value: Float64Array) => value);
const touch = remote((value: Float64Array) => value[5]);
const fill = remote((value: Float64Array) => Tensor.allocate('float64', [value.length]));
async function way(name: string, run: () => Promise<unknown>): Promise<void> {
  await run();
  await run();
  const p50 = await time(7, run);
  report.add({ name, p50, 'times as fast': cloned / p50 });
}
const ref = put(array);
await way('100 MB there and back, by value (a copy each way)', () => echo.remote(array).get());
await way('100 MB there as a reference, back by value (one copy)', () => echo.remote(ref).get());
await way('100 MB there as a reference, back in allocated memory', () => fill.remote(ref).get());
await way('100 MB there as a reference, read, a number back', () => touch.remote(ref).get());
const passOn = remote(async ([inside]: [ObjectRef<Float64Array>]) =>
  (await get(inside))[5] === 1.5 ? inside : undefined,
);
await way('100 MB there and back as a reference, read on both sides', async () => {
  const back = (await passOn.remote([ref]).get()) as ObjectRef<Float64Array>;
  if ((await get(back))[5] !== 1.5) throw new Error('other contents');
});
ref[Symbol.dispose]();

const readTable = remote(async ([table]: [ObjectRef<arrow.Table>]) => {
  const started = performance.now();
  const column = (await get(table)).getChild('values') as arrow.Vector<arrow.Float64>;
  const last = column.get(column.length - 1);
  return { last, took: (performance.now() - started) * 1000 };
});
for (const [name, bytes] of [
  ['1 MB', MB],
  ['100 MB', 100 * MB],
  ['1 GB', GB],
] as const) {
  const values = new Float64Array(bytes / 8).fill(2);
  using table = put(new arrow.Table({ values: arrow.makeVector(values) }));
  const times: number[] = [];
  for (let round = 0; round < 12; round++) {
    const { last, took } = await readTable.remote([table]).get();
    if (last !== 2) throw new Error('other contents');
    if (round > 1) times.push(took);
  }
  report.add({ name: `get of an Arrow table of ${name} in another process, one cell read`, p50: median(times) });
}

await shutdown();
report.finish();
