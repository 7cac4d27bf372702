import { once } from 'node:events';
import test from 'ava';
import { get, put, remote, SerializationError } from 'heliostat';
import { storeIsEmpty, withCluster } from './support/cluster.js';

withCluster(test, { objectStoreMemory: 512 << 20 });

const KIB = 1024;

test.serial('many results that are small each are more than a message: they go to the store', async (t) => {
  const count = 1_000;
  const refs = remote((n: number) => Array.from({ length: n }, (_, index) => new Uint8Array(90 * 1024).fill(index)))
    .options({ numReturns: count })
    .remote(count) as unknown as import('heliostat').ObjectRef<Uint8Array>[];
  for (const index of [0, 1, 500, 999]) t.is((await refs[index]?.get())?.[7], index % 256);
  for (const ref of refs) ref[Symbol.dispose]();
  await storeIsEmpty();
});

test.serial('more small arguments by reference than a message takes fail, and say what to do', async (t) => {
  const refs = Array.from({ length: 500 }, () => put(new Uint8Array(90 * KIB)));
  const sum = remote((...parts: Uint8Array[]) => parts.reduce((bytes, part) => bytes + part.length, 0));
  const error = await t.throwsAsync(sum.remote(...refs).get(), { instanceOf: SerializationError });
  t.regex(error?.message ?? '', /500 arguments of .*\(\) .* take \d+ bytes in one message/);
  t.regex((error as SerializationError).hint ?? '', /one array/);
  const inside = remote(async (all: import('heliostat').ObjectRef<Uint8Array>[]) => (await get(all)).length);
  t.is(await inside.remote(refs).get(), 500, 'as the hint says');
  for (const ref of refs) ref[Symbol.dispose]();
  await storeIsEmpty();
});

test.serial('a large argument that is passed by value again is warned about once for each place', async (t) => {
  const model = Float64Array.from({ length: 100_000 }, (_, index) => index);
  const predict = remote(function predict(weights: Float64Array, at: number) {
    return weights[at];
  });
  const warnings: (Error & { code?: string; detail?: string })[] = [];
  const note = (warning: Error) => warnings.push(warning);
  process.on('warning', note);
  const warned = once(process, 'warning');
  const refs = [];
  for (let shard = 0; shard < 12; shard++) refs.push(predict.remote(model, shard));
  t.deepEqual(await get(refs), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
  await warned;
  t.deepEqual(
    warnings.map(({ code }) => code),
    ['LARGE_ARGUMENT'],
  );
  t.regex(warnings[0]?.message ?? '', /argument 0 of predict\(\) .* 8000\d\d bytes/);
  t.regex(warnings[0]?.detail ?? '', /tasks-large\.spec\.ts[\s\S]*put\(value\)/);
  // Another large argument, and one that is passed once, are nobody's business.
  await predict.remote(model.slice(), 1).get();
  t.is(warnings.length, 1);
  process.off('warning', note);
  for (const ref of refs) ref[Symbol.dispose]();
  await storeIsEmpty();
});
