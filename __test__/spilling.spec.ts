import { closeSync, fstatSync, mkdtempSync, openSync, readdirSync, statSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import {
  get,
  getRange,
  getSync,
  init,
  locate,
  ObjectCorruptedError,
  type ObjectRef,
  put,
  remote,
  state,
  wait,
} from 'heliostat';
import { eventually, killed, storeIsEmpty, withCluster } from './support/cluster.js';

const MIB = 1 << 20;
const dir = mkdtempSync(join(tmpdir(), 'heliostat-spill-test-'));

withCluster(test, { objectStoreMemory: 64 * MIB, objectSpilling: { uris: [dir], minSpillingSize: 8 * MIB } });

const make = (index: number, mib = 8) => put(new Uint8Array(mib * MIB).fill(index));
const isSpilled = async (ref: ObjectRef) => (await locate(ref)).state === 'spilled';

function bytesIn(path: string): number {
  return files(path).reduce((sum, file) => sum + statSync(file).size, 0);
}

/** What a view holds, without holding the view. */
function counted(view: Uint8Array): { length: number; others: number; first: number } {
  const first = view[0] as number;
  let others = 0;
  for (const byte of view) if (byte !== first) others += 1;
  return { length: view.length, others, first };
}

function files(path: string): string[] {
  return readdirSync(path, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}

async function nothingIsLeft(): Promise<void> {
  await storeIsEmpty();
  await eventually('no spilled bytes', async () => (await state.memory()).spilled === 0);
  await eventually('no files but markers', () => bytesIn(dir) < 64 * 1024);
}

test.serial('four times the store goes in and comes back, byte by byte', async (t) => {
  const refs = Array.from({ length: 32 }, (_, index) => make(index));
  t.true((await state.memory()).spilled >= 190 * MIB);
  t.true(bytesIn(dir) >= 190 * MIB);
  for (const [index, ref] of refs.entries()) {
    t.deepEqual(counted(await get(ref)), { length: 8 * MIB, others: 0, first: index });
  }
  for (const ref of refs) ref[Symbol.dispose]();
  await nothingIsLeft();
});

test.serial('random gets of more than fits, all at once', async (t) => {
  const refs = Array.from({ length: 24 }, (_, index) => make(index));
  const some = Array.from({ length: 40 }, (_, n) => (n * 7) % 24);
  for (let at = 0; at < some.length; at += 4) {
    const wanted = some.slice(at, at + 4);
    const all = wanted.map((index) => refs[index] as ObjectRef<Uint8Array>);
    t.deepEqual(await get(all).then((values) => values.map((value) => value[5])), wanted);
  }
  for (const ref of refs) ref[Symbol.dispose]();
  await nothingIsLeft();
});

test.serial('locate tells where a spilled object is, and getRange reads only its range', async (t) => {
  const first = put(new Float64Array(MIB).map((_, index) => index));
  const others = Array.from({ length: 12 }, (_, index) => make(index));
  t.true(await isSpilled(first));
  const place = await locate(first);
  t.true(place.uri?.includes(dir), place.uri);
  t.is(place.nodes.length, 1);
  const part = await getRange(first, 8 * 1000, 8 * 1003);
  t.deepEqual([...new Float64Array(part.slice().buffer)], [1000, 1001, 1002]);
  t.deepEqual(await getRange(first, 8 * MIB, 8 * MIB), new Uint8Array(0));
  await t.throwsAsync(getRange(first, 0, 8 * MIB + 1), { instanceOf: RangeError });
  t.true(await isSpilled(first), 'it stays where it is');
  t.is(getSync(first)[77], 77);
  t.is((await locate(first)).state, 'memory');
  t.is((await locate(others[11] as ObjectRef)).uri, undefined);
  for (const ref of others) ref[Symbol.dispose]();
  first[Symbol.dispose]();
  await nothingIsLeft();
});

test.serial('arguments of tasks are brought back before they begin, however many tasks there are', async (t) => {
  const refs = Array.from({ length: 20 }, (_, index) => make(index));
  // Three arguments are more than a third of the store, and two workers run them.
  const sum = remote((a: Uint8Array, b: Uint8Array, c: Uint8Array) => (a[1] ?? 0) + (b[2] ?? 0) + (c[3] ?? 0));
  const tasks = Array.from({ length: 30 }, (_, n) => {
    const [a, b, c] = [n % 20, (n * 3 + 1) % 20, (n * 7 + 2) % 20].map((index) => refs[index]) as [
      ObjectRef<Uint8Array>,
      ObjectRef<Uint8Array>,
      ObjectRef<Uint8Array>,
    ];
    return sum.remote(a, b, c);
  });
  const sums = await get(tasks);
  t.deepEqual(
    sums,
    Array.from({ length: 30 }, (_, n) => (n % 20) + ((n * 3 + 1) % 20) + ((n * 7 + 2) % 20)),
  );
  for (const ref of [...refs, ...tasks]) ref[Symbol.dispose]();
  await nothingIsLeft();
});

test.serial('results of tasks spill too, and a reference inside a value keeps its object', async (t) => {
  const produce = remote((index: number) => new Uint8Array(8 << 20).fill(index));
  const results = Array.from({ length: 16 }, (_, index) => produce.remote(index));
  await wait(results, { numReturns: 16 });
  const nested = put({ inner: put(new Uint8Array(8 * MIB).fill(42)), pad: new Uint8Array(8 * MIB) });
  const others = Array.from({ length: 8 }, (_, index) => make(index));
  t.true(await isSpilled(nested));
  t.is((await get((await get(nested)).inner))[3], 42);
  for (const [index, ref] of results.entries()) t.is((await get(ref))[0], index);
  for (const ref of [...results, ...others]) ref[Symbol.dispose]();
  nested[Symbol.dispose]();
  await nothingIsLeft();
});

test.serial('a worker killed while its arguments come back loses nothing', async (t) => {
  const refs = Array.from({ length: 20 }, (_, index) => make(index));
  const slow = remote((a: Uint8Array, b: Uint8Array) => (a[0] ?? 0) * 100 + (b[0] ?? 0), { maxRetries: 20 });
  const tasks = Array.from({ length: 10 }, (_, n) =>
    slow.remote(refs[n] as ObjectRef<Uint8Array>, refs[19 - n] as ObjectRef<Uint8Array>),
  );
  for (let round = 0; round < 4; round += 1) {
    const worker = (await state.listWorkers()).find(({ state: activity }) => activity === 'busy');
    if (worker !== undefined) killed(worker.pid);
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
  t.deepEqual(
    await get(tasks),
    Array.from({ length: 10 }, (_, n) => n * 100 + 19 - n),
  );
  for (const ref of [...refs, ...tasks]) ref[Symbol.dispose]();
  await nothingIsLeft();
});

test.serial('views that the program holds stay readable while others are spilled', async (t) => {
  const ref = make(7);
  const view = await get(ref);
  const others = Array.from({ length: 16 }, (_, index) => make(index));
  t.true(view.every((byte) => byte === 7));
  t.is((await locate(ref)).state, 'memory');
  for (const ref of others) ref[Symbol.dispose]();
  ref[Symbol.dispose]();
  await eventually('the rest is gone', async () => (await state.memory()).spilled === 0);
  t.is(view[8 * MIB - 1], 7);
});

test.serial('what was damaged in storage is never given to anybody', async (t) => {
  const refs = Array.from({ length: 20 }, (_, index) => make(index));
  const spilled: ObjectRef<Uint8Array>[] = [];
  for (const ref of refs) if (await isSpilled(ref)) spilled.push(ref);
  t.true(spilled.length > 10);
  for (const file of files(dir)) {
    if (statSync(file).size < MIB) continue;
    // Changes a byte in each MiB.
    const fd = openSync(file, 'r+');
    for (let at = 70_000; at < fstatSync(fd).size; at += MIB) writeSync(fd, new Uint8Array([0xa5]), 0, 1, at);
    closeSync(fd);
  }
  const firstOf = remote((bytes: Uint8Array) => bytes[0], { maxRetries: 0 });
  for (const ref of spilled) {
    await t.throwsAsync(get(ref), { instanceOf: ObjectCorruptedError, message: /damaged/ });
    t.throws(() => getSync(ref), { instanceOf: ObjectCorruptedError });
    await t.throwsAsync(get(firstOf.remote(ref)), { instanceOf: ObjectCorruptedError });
  }
  // Others may have left after they were looked at: they give their own bytes, or say that these are damaged.
  for (const [index, ref] of refs.entries()) {
    const first = await get(ref).then(
      (view) => view[0],
      (error: unknown) => error,
    );
    t.true(first instanceof ObjectCorruptedError || (first === index && !spilled.includes(ref)), `object ${index}`);
  }
  t.is(await get(firstOf.remote(put(new Uint8Array([3])))), 3, 'the worker goes on');
  for (const ref of refs) ref[Symbol.dispose]();
  await nothingIsLeft();
});

test.serial('settings that make no sense are refused', async (t) => {
  await t.throwsAsync(init({ objectSpilling: { threshold: 2 } }), { instanceOf: RangeError, message: /threshold/ });
  await t.throwsAsync(init({ objectSpilling: { uris: [] } }), { instanceOf: TypeError, message: /uris/ });
  await t.throwsAsync(init({ objectSpilling: { nonsense: 1 } as never }), {
    instanceOf: TypeError,
    message: /nonsense/,
  });
});
