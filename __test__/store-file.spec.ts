import { mkdtempSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import {
  allocate,
  get,
  getRange,
  getSync,
  locate,
  ObjectRef,
  put,
  putAsync,
  ReadOnlyObjectError,
  remote,
  state,
} from 'heliostat';
import { eventually, storeIsEmpty, withCluster } from './support/cluster.js';

const MIB = 1 << 20;
const dir = mkdtempSync(join(tmpdir(), 'heliostat-file-test-'));

withCluster(test, { objectStoreMemory: 64 * MIB, objectSpilling: { uris: [dir], minSpillingSize: 8 * MIB } });

const pattern = (mib: number, seed: number) => {
  const words = new Uint32Array((mib * MIB) / 4);
  for (let at = 0; at < words.length; at += 1) words[at] = (at * 2_654_435_761 + seed) >>> 0;
  return words;
};

function differs(words: Uint32Array, mib: number, seed: number): number {
  if (words.length !== (mib * MIB) / 4) return -2;
  for (let at = 0; at < words.length; at += 1) if (words[at] !== (at * 2_654_435_761 + seed) >>> 0) return at;
  return -1;
}

async function nothingIsLeft(): Promise<void> {
  await storeIsEmpty();
  await eventually('no bytes in the file', async () => (await state.memory()).file === 0);
  await eventually('no spilled bytes', async () => (await state.memory()).spilled === 0);
}

test.serial(
  'an object larger than the store is put, read, given to a task and returned by one, byte by byte',
  async (t) => {
    const ref = put(pattern(100, 1));
    t.true((await state.memory()).file >= 100 * MIB);
    t.is((await state.memory()).used, 0);
    t.is(differs(await get(ref), 100, 1), -1);
    t.is(differs(getSync(ref), 100, 1), -1);
    t.is((await locate(ref)).state, 'memory');
    t.deepEqual(await getRange(ref, 4 * 1000, 4 * 1001), new Uint8Array(pattern(1, 1).slice(1000, 1001).buffer));
    const next = remote((words: Uint32Array) => {
      const other = new Uint32Array(words.length + 1);
      for (let at = 0; at < words.length; at += 1) other[at] = words[at] as number;
      other[words.length] = words[77] as number;
      return other;
    });
    const result = next.remote(ref);
    const words = await get(result);
    t.is(differs(words.subarray(0, -1), 100, 1), -1);
    t.is(words[words.length - 1], pattern(1, 1)[77]);
    t.deepEqual(
      readdirSync(dir, { recursive: true }).filter((name) => String(name).endsWith('.seg')),
      [],
      'it has no name, and is not spilled',
    );
    ref[Symbol.dispose]();
    result[Symbol.dispose]();
  },
);

test.serial('putAsync, a draft and references inside work above the capacity as below it', async (t) => {
  const inner = put(pattern(1, 5));
  const asynchronous = await putAsync({ inner, words: pattern(80, 2) });
  const read = await get(asynchronous);
  t.is(differs(read.words, 80, 2), -1);
  t.is(differs(await get(read.inner), 1, 5), -1);
  const draft = allocate(Uint32Array, (96 * MIB) / 4);
  t.true(draft.view.every((word) => word === 0));
  draft.view.set(pattern(96, 3));
  const sealed = draft.seal();
  t.is(differs(await get(sealed), 96, 3), -1);
  const nest = remote((mib: number) => ({
    big: new Uint8Array(mib << 20).fill(4),
    ref: put(new Uint8Array(1 << 20).fill(6)),
  }));
  const nested = nest.remote(70);
  const { big, ref } = await get(nested);
  t.is(big.length, 70 * MIB);
  t.true(big.every((byte) => byte === 4));
  t.true(ref instanceof ObjectRef);
  t.is((await get(ref))[MIB - 1], 6);
  for (const each of [inner, asynchronous, sealed, nested, ref, read.inner]) each[Symbol.dispose]();
});

test.serial('a write into a view of it is undone and reported', async (t) => {
  const ref = put(pattern(100, 7));
  const words = await get(ref);
  if (Number(process.versions.node.split('.')[0]) >= 26) {
    t.throws(() => words.fill(0), { instanceOf: TypeError });
  } else {
    words[5] = 0;
    await t.throwsAsync(get(ref), { instanceOf: ReadOnlyObjectError });
  }
  t.is(differs(await get(ref), 100, 7), -1);
  ref[Symbol.dispose]();
});

test.serial('what was spilled comes back to the file when others hold the memory', async (t) => {
  const wanted = put(pattern(30, 9));
  const held = Array.from({ length: 7 }, (_, index) => put(new Uint8Array(8 * MIB).fill(index)));
  await eventually('it is spilled', async () => (await locate(wanted)).state === 'spilled');
  let views: readonly Uint8Array[] = await get(held);
  t.is(differs(await get(wanted), 30, 9), -1);
  t.true((await state.memory()).file >= 30 * MIB, 'there was no room in memory');
  const count = remote((words: Uint32Array) => words.length);
  t.is(await count.remote(wanted).get(), (30 * MIB) / 4);
  t.true(views.every((view, index) => view[MIB] === index));
  views = [];
  for (const each of [wanted, ...held]) each[Symbol.dispose]();
});

test.serial('an argument that can never be had in memory is, too', async (t) => {
  const parts = Array.from({ length: 10 }, (_, index) => put(pattern(8, index)));
  const sum = remote((...all: Uint32Array[]) => all.map((words) => words[3] as number));
  t.deepEqual(
    await sum.remote(...parts).get(),
    parts.map((_, index) => pattern(1, index)[3] as number),
  );
  for (const each of parts) each[Symbol.dispose]();
});

test.serial('nothing is left of it', async (t) => {
  await nothingIsLeft();
  t.pass();
});
