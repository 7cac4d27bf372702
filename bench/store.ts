/**
 * The object store from TypeScript: small values in this process and in another, large ones against the machine's own memory.
 * Each ratio compares two figures of this run.
 */
import { closeSync, openSync, unlinkSync, writeSync } from 'node:fs';
import { allocate, get, getSync, init, type ObjectRef, put, remote, shutdown, state } from 'heliostat';
import { median, Report, summary, timeEach } from './report.ts';

const KIB = 1024;
const MIB = KIB * KIB;
const GIB = KIB * MIB;
/** What Ray publishes for one client on 64 cores, calls a second. */
const RAY = { put: 5_200, get: 10_600 };

const report = new Report('The store, microseconds');
const value = (i: number) => new Uint8Array(KIB).fill(i);

/** Puts, then gets in this process; each get is of a reference that was not read before. */
async function small(name: string, count: number): Promise<ObjectRef<Uint8Array>[]> {
  const values = Array.from({ length: 256 }, (_, i) => value(i));
  let refs: ObjectRef<Uint8Array>[] = [];
  const puts: number[] = [];
  const gets: number[] = [];
  for (let round = 0; round < 5; round++) {
    for (const ref of refs) ref[Symbol.dispose]();
    let started = performance.now();
    refs = Array.from({ length: count }, (_, i) => put(values[i & 255] as Uint8Array));
    puts.push(((performance.now() - started) * 1000) / count);
    started = performance.now();
    for (const [i, ref] of refs.entries()) {
      const got = await get(ref);
      if (got[5] !== (i & 255) || got.length !== KIB) throw new Error(`object ${i} has other contents`);
    }
    gets.push(((performance.now() - started) * 1000) / count);
  }
  const [putTime, getTime] = [median(puts), median(gets)];
  report.add({
    name: `put of 1 KiB, ${name}`,
    p50: putTime,
    'per second': 1e6 / putTime,
    'times Ray': 1e6 / putTime / RAY.put,
  });
  report.add({
    name: `get of 1 KiB, ${name}`,
    p50: getTime,
    'per second': 1e6 / getTime,
    'times Ray': 1e6 / getTime / RAY.get,
  });
  return refs;
}

const readAll = remote(async (refs: ObjectRef<Uint8Array>[]) => {
  const started = performance.now();
  for (const [i, ref] of refs.entries()) {
    const got = await get(ref);
    if (got[5] !== (i & 255) || got.length !== 1024) throw new Error(`object ${i} has other contents`);
  }
  return ((performance.now() - started) * 1000) / refs.length;
});

await init({ numCpus: 1, objectStoreMemory: 4 * GIB });
await small('inline', 10_000);
await shutdown();

await init({ numCpus: 1, objectStoreMemory: 6 * GIB, inlineLimit: 0 });
const refs = await small('in the store', 10_000);
const elsewhere: number[] = [];
for (let round = 0; round < 7; round++) elsewhere.push(await readAll.remote(refs).get());
const far = median(elsewhere.slice(2));
report.add({
  name: 'get of 1 KiB, in the store, in another process',
  p50: far,
  'per second': 1e6 / far,
  'times Ray': 1e6 / far / RAY.get,
});
for (const ref of refs) ref[Symbol.dispose]();

// Large values: the same 100 MB into warm memory of this process, into the store, into a fresh file in memory.
const large = new Float64Array((100 * MIB) / 8).fill(1);
const target = new Float64Array(large.length).fill(0);
const copies: number[] = [];
const puts: number[] = [];
for (let i = 0; i < 12; i++) {
  let started = performance.now();
  target.set(large);
  copies.push(performance.now() - started);
  started = performance.now();
  const ref = put(large);
  puts.push(performance.now() - started);
  ref[Symbol.dispose]();
  // The freed memory goes back to the daemon before the next put, as it does between the tasks of a program.
  await state.memory();
}
const share = median(copies.slice(2).map((copy, i) => copy / (puts[i + 2] as number)));
report.add({
  name: 'memcpy of 100 MiB, warm',
  p50: median(copies.slice(2)) * 1000,
  'MB/s': (100 * MIB) / (median(copies.slice(2)) * 1000),
});
report.add({
  name: 'put of 100 MiB, warm',
  p50: median(puts.slice(2)) * 1000,
  'MB/s': (100 * MIB) / (median(puts.slice(2)) * 1000),
  'of memcpy': share,
});

const fresh: number[] = [];
const written: number[] = [];
const kept: ObjectRef[] = [];
for (let i = 0; i < 6; i++) {
  let started = performance.now();
  kept.push(put(large));
  fresh.push(performance.now() - started);
  const path = `/dev/shm/heliostat-bench-${process.pid}-${i}`;
  const file = openSync(path, 'wx');
  unlinkSync(path);
  started = performance.now();
  writeSync(file, new Uint8Array(large.buffer));
  written.push(performance.now() - started);
  closeSync(file);
}
report.add({
  name: 'write() of 100 MiB into fresh memory',
  p50: median(written) * 1000,
  'MB/s': (100 * MIB) / (median(written) * 1000),
});
report.add({
  name: 'put of 100 MiB into fresh memory',
  p50: median(fresh) * 1000,
  'MB/s': (100 * MIB) / (median(fresh) * 1000),
  'times faster than write()': median(written.map((time, i) => time / (fresh[i] as number))),
});
for (const ref of kept) ref[Symbol.dispose]();

/** Fills memory in place and makes it an object. */
function drafted(bytes: number): { ref: ObjectRef<Uint8Array>; seal: number } {
  const draft = allocate(Uint8Array, bytes);
  draft.view[0] = 1;
  draft.view[bytes - 1] = 2;
  const started = performance.now();
  const ref = draft.seal();
  return { ref, seal: (performance.now() - started) * 1000 };
}

const further: number[] = [];
for (const [name, bytes] of [
  ['1 MiB', MIB],
  ['1 GiB', GIB],
] as const) {
  const { ref, seal } = drafted(bytes);
  const started = performance.now();
  const view = await get(ref);
  const first = (performance.now() - started) * 1000;
  if (view[0] !== 1 || view[bytes - 1] !== 2) throw new Error('the drafted bytes are not there');
  const again = summary(await timeEach(2000, () => get(ref)));
  further.push(again.p50);
  report.add({ name: `seal of a draft of ${name}`, p50: seal });
  report.add({ name: `first get of ${name}`, p50: first });
  report.add({ name: `further get of ${name}`, ...again });
  ref[Symbol.dispose]();
}
report.add({ name: 'further get, 1 GiB over 1 MiB', 'times as long': (further[1] as number) / (further[0] as number) });

// A loop of gets of one large object, without a turn of the event loop: nothing piles up.
const loop = put(large);
getSync(loop);
const before = process.memoryUsage.rss();
const loopStarted = performance.now();
for (let i = 0; i < 10_000; i++) if (getSync(loop)[i] !== 1) throw new Error('other contents');
report.add({
  name: '10,000 gets of 100 MiB in a loop',
  p50: ((performance.now() - loopStarted) * 1000) / 10_000,
  'MiB grown': (process.memoryUsage.rss() - before) / MIB,
});

await shutdown();
report.finish();
