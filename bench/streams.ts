/**
 * Streams: items a second, what one item takes from its maker to its taker, large items. Beside them what a program could use
 * instead: a thread that posts each item, which knows neither room nor references.
 *
 *   HELIOSTAT_QUICK=1   small counts, to see that it runs: such figures mean nothing
 */
import { Worker } from 'node:worker_threads';
import { init, type ObjectRefGenerator, remote, shutdown } from 'heliostat';
import { median, Report, summary, timeEach } from './report.ts';
import { type Add, plain, rival, withGoal } from './tasks/figures.ts';
import { collect, count, expect, QUICK } from './tasks/sizes.ts';

const KIB = 1024;
const ROUNDS = count(5, 1);
const ITEMS = count(100_000, 1000);
const LARGE_ITEMS = count(300, 10);
const ROUND_TRIPS = count(5000, 50);
const GOAL = 50_000;

const text = remote(function* text(items: number) {
  const item = 'x'.repeat(1000);
  for (let i = 0; i < items; i++) yield item;
});
const textLater = remote(async function* textLater(items: number) {
  const item = 'x'.repeat(1000);
  for (let i = 0; i < items; i++) yield item;
});
const bytes = remote(function* bytes(items: number, length: number) {
  for (let i = 0; i < items; i++) yield new Uint8Array(length).fill(i);
});

type Lengths = ObjectRefGenerator<{ length: number }>;

async function readRefs(generator: Lengths): Promise<number> {
  let sum = 0;
  for await (const ref of generator) {
    sum += (await ref.get()).length;
    ref[Symbol.dispose]();
  }
  return sum;
}

async function readValues(generator: Lengths): Promise<number> {
  let sum = 0;
  for await (const value of generator.values()) sum += value.length;
  return sum;
}

/** Items a second, the median of some rounds. */
async function rate(items: number, length: number, pass: () => Promise<number>): Promise<number> {
  const times = await timeEach(ROUNDS, async () => expect('bytes', await pass(), items * length));
  await collect();
  return (items * 1e6) / median(times);
}

/** A thread that posts as many items, and counts on nobody. */
function threadPosts(): Promise<number> {
  const program = `
    const { parentPort, workerData } = require('node:worker_threads');
    for (let i = 0; i < workerData; i++) parentPort.postMessage('x'.repeat(1000));
    parentPort.postMessage(null);
  `;
  return new Promise((resolve, reject) => {
    let sum = 0;
    const thread = new Worker(program, { eval: true, workerData: ITEMS });
    thread.once('error', reject);
    thread.on('message', (item: string | null) => {
      if (item === null) resolve(sum);
      else sum += item.length;
    });
  });
}

async function small(add: Add): Promise<void> {
  const lines: [name: string, length: number, pass: () => Promise<number>][] = [
    ['1 KB texts, references', 1000, () => readRefs(text.remote(ITEMS))],
    ['1 KB texts, values()', 1000, () => readValues(text.remote(ITEMS))],
    ['1 KB texts, values(), asynchronous maker', 1000, () => readValues(textLater.remote(ITEMS))],
    [
      '1 KB texts, values(), bufferedItems: 256',
      1000,
      () => readValues(text.options({ bufferedItems: 256 }).remote(ITEMS)),
    ],
    ['1 KiB byte arrays, references', KIB, () => readRefs(bytes.remote(ITEMS, KIB))],
    ['1 KiB byte arrays, values()', KIB, () => readValues(bytes.remote(ITEMS, KIB))],
  ];
  let ours = 0;
  for (const [name, length, pass] of lines) {
    const measured = await rate(ITEMS, length, pass);
    ours = Math.max(ours, measured);
    add(withGoal({ name, measured, unit: 'items/s', better: 'more' }, GOAL));
  }
  const measured = await rate(ITEMS, 1000, threadPosts);
  add(
    rival({ name: '  worker_threads: a message for each 1 KB text', measured, unit: 'items/s', better: 'more' }, ours),
  );
}

/** With room for one item, the next is made when this one is taken: what next() takes is there and back. */
async function latency(add: Add): Promise<void> {
  for (const [kind, maker] of [
    ['synchronous', text],
    ['asynchronous', textLater],
  ] as const) {
    await using generator = maker.options({ bufferedItems: 1 }).remote(Number.MAX_SAFE_INTEGER);
    const { p50, mean } = summary(
      await timeEach(ROUND_TRIPS, async () => {
        const { value: ref } = await generator.next();
        expect('length', (await ref?.get())?.length, 1000);
        ref?.[Symbol.dispose]();
      }),
    );
    add(plain(`an item there and back, ${kind} maker, p50`, p50, 'µs'));
    add(plain(`an item there and back, ${kind} maker, mean`, mean, 'µs'));
  }
}

async function large(add: Add): Promise<void> {
  const length = KIB * KIB;
  const perSecond = await rate(LARGE_ITEMS, length, () =>
    readRefs(bytes.options({ bufferedItems: 4 }).remote(LARGE_ITEMS, length)),
  );
  add(plain('1 MiB byte arrays, filled and read without a copy', (perSecond * length) / 1e6, 'MB/s'));
}

const report = new Report(`Streams${QUICK ? ', a QUICK run: the figures mean nothing' : ''}`);
const add: Add = (row) => report.add(row);
await init({ numCpus: 2 });
await small(add);
await latency(add);
await large(add);
await shutdown();
report.finish();
