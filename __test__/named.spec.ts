import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import {
  free,
  get,
  getNamed,
  init,
  NameNotFoundError,
  NameTakenError,
  ObjectFreedError,
  type ObjectRef,
  OwnerDiedError,
  put,
  putAsync,
  remote,
} from 'heliostat';
import { eventually, storeIsEmpty, withCluster, workerPids } from './support/cluster.js';

withCluster(test);

const notFound = { instanceOf: NameNotFoundError, code: 'NAME_NOT_FOUND' } as const;

test.serial('a named object is found by everybody, and its name is taken', async (t) => {
  const small = put({ n: 1 }, { name: 'small' });
  const large = await putAsync(new Float64Array(100_000).fill(3), { name: 'large' });
  t.deepEqual(await small.get(), { n: 1 });
  t.is((await large.get())[99_999], 3);
  const error = t.throws(() => put(2, { name: 'small' }), { instanceOf: NameTakenError, code: 'NAME_TAKEN' });
  t.regex(error.message, /"small".*"default"/);
  t.throws(() => put(new Uint8Array(300_000), { name: 'large' }), { instanceOf: NameTakenError });
  const found = await getNamed<{ n: number }>('small');
  t.true(found.equals(small));
  const reader = remote(async () => {
    const [a, b] = [await getNamed<{ n: number }>('small'), await getNamed<Float64Array>('large')];
    return (await a.get()).n + ((await b.get())[5] ?? 0);
  });
  t.is(await reader.remote().get(), 4);
  t.is(
    await remote((x: { n: number }) => x.n)
      .remote(found)
      .get(),
    1,
  );
  await t.throwsAsync(getNamed('nobody'), notFound);
  // Freed by a borrower: the owner is elsewhere. The names are free again.
  free([small, large]);
  await t.throwsAsync(small.get(), { instanceOf: ObjectFreedError });
  await t.throwsAsync(getNamed('small'), notFound);
  await t.throwsAsync(found.get(), { instanceOf: ObjectFreedError });
  const again = put(5, { name: 'small' });
  t.is(await get(again), 5);
  free(again);
  for (const ref of [small, large, found, again]) ref[Symbol.dispose]();
  await storeIsEmpty();
});

test.serial('the process that stored it may end', async (t) => {
  const maker = remote(() => {
    put([new Uint8Array(200_000).fill(7)], { name: 'legacy' });
    put('small too', { name: 'small legacy' });
    return process.pid;
  });
  const pid = await maker.remote().get();
  process.kill(pid, 'SIGKILL');
  await eventually('the end of the maker', async () => !(await workerPids()).includes(pid));
  const ref = await getNamed<Uint8Array[]>('legacy');
  t.is((await ref.get())[0]?.[199_999], 7);
  const small = await getNamed<string>('small legacy');
  t.is(await small.get(), 'small too');
  free([ref, small]);
  for (const each of [ref, small]) each[Symbol.dispose]();
  await storeIsEmpty();
});

test.serial('after its time the name is gone, and the object with its last reference', async (t) => {
  const value = new Uint8Array(250_000).fill(9);
  const ref = put(value, { name: 'brief', ttlMs: 300 });
  await eventually('the end of the name', () =>
    getNamed('brief').then(
      () => false,
      () => true,
    ),
  );
  await t.throwsAsync(getNamed('brief'), notFound);
  t.is((await ref.get())[1], 9, 'a reference keeps the object');
  const other = put(1, { name: 'brief', ttlMs: 0 });
  t.is(await other.get(), 1);
  ref[Symbol.dispose]();
  other[Symbol.dispose]();
  await storeIsEmpty();
});

test.serial('a named object that nobody refers to goes with its name', async (t) => {
  put(new Uint8Array(250_000), { name: 'lonely', ttlMs: 200 })[Symbol.dispose]();
  await eventually('the end of the name', () =>
    getNamed('lonely').then(
      () => false,
      () => true,
    ),
  );
  await storeIsEmpty();
  t.pass();
});

test.serial('references inside are kept, and fail when their owners end', async (t) => {
  const inner = put(new Uint8Array(300_000).fill(4));
  const outer = put({ inner }, { name: 'outer' });
  inner[Symbol.dispose]();
  outer[Symbol.dispose]();
  {
    const found = await getNamed<{ inner: ObjectRef<Uint8Array> }>('outer');
    const kept = (await found.get()).inner;
    t.is((await kept.get())[3], 4);
    free(found);
    t.is((await kept.get())[2], 4);
    for (const ref of [found, kept]) ref[Symbol.dispose]();
  }
  await storeIsEmpty();
  const maker = remote(() => {
    put({ inner: put('of the worker'), pid: process.pid }, { name: 'mixed' });
    return process.pid;
  });
  const pid = await maker.remote().get();
  const mixed = await getNamed<{ inner: ObjectRef<string> }>('mixed');
  t.is(await (await mixed.get()).inner.get(), 'of the worker');
  process.kill(pid, 'SIGKILL');
  await eventually('the end of the maker', async () => !(await workerPids()).includes(pid));
  const late = await (await getNamed<{ inner: ObjectRef<string> }>('mixed')).get();
  await t.throwsAsync(late.inner.get(), { instanceOf: OwnerDiedError });
  free(mixed);
});

test.serial('free reaches an object that another process owns', async (t) => {
  const maker = remote(() => ({ ref: put(new Uint8Array(200_000)) }));
  const { ref } = await maker.remote().get();
  t.is((await ref.get()).length, 200_000);
  free(ref);
  await t.throwsAsync(ref.get(), { instanceOf: ObjectFreedError });
  const again = remote((box: { ref: ObjectRef<unknown> }) => get(box.ref).catch((error) => error.code));
  t.is(await again.remote({ ref }).get(), 'OBJECT_FREED');
  const mine = put(1);
  t.is(
    await remote((box: { ref: ObjectRef<unknown> }) => free(box.ref))
      .remote({ ref: mine })
      .get(),
    undefined,
  );
  await eventually('the end of the value', () =>
    get(mine).then(
      () => false,
      (error) => error.code === 'OBJECT_FREED',
    ),
  );
  for (const each of [ref, mine]) each[Symbol.dispose]();
  await storeIsEmpty();
});

test.serial('many names, from many tasks at once: one of them gets each', async (t) => {
  const claim = remote((name: string) => {
    try {
      put(process.pid, { name })[Symbol.dispose]();
      return true;
    } catch (error) {
      return (error as { code: string }).code;
    }
  });
  const results = await get(Array.from({ length: 60 }, (_, i) => claim.remote(`name ${i % 20}`)));
  t.is(results.filter((result) => result === true).length, 20);
  t.is(results.filter((result) => result === 'NAME_TAKEN').length, 40);
  for (let i = 0; i < 20; i += 1) free(await getNamed(`name ${i}`));
});

test.serial('namespaces keep names apart, in the tasks of a driver as well', async (t) => {
  const { address } = await init({ ignoreReinit: true });
  const mine = put('default', { name: 'shared' });
  const child = spawn(process.execPath, [fileURLToPath(new URL('fixtures/named.mjs', import.meta.url)), address], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let out = '';
  child.stdout.on('data', (data) => (out += data));
  await once(child, 'close');
  t.deepEqual(JSON.parse(out), { before: 'NAME_NOT_FOUND', own: 'elsewhere', task: 'elsewhere', taken: 'NAME_TAKEN' });
  t.is(await (await getNamed('shared')).get(), 'default');
  free(mine);
});

test.serial('a named put waits for the daemon, but not for ever', async (t) => {
  const child = spawn(process.execPath, [fileURLToPath(new URL('fixtures/named-stopped.mjs', import.meta.url))], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let out = '';
  child.stdout.on('data', (data) => (out += data));
  await once(child, 'close');
  const { code, waited, after } = JSON.parse(out) as { code: string; waited: number; after: number };
  t.is(code, 'TRANSPORT');
  t.true(waited >= 4_900, `${waited} ms`);
  t.is(after, 7);
});

test('bad names are refused', async (t) => {
  t.throws(() => put(1, { name: '' }), { instanceOf: RangeError, message: /name/ });
  t.throws(() => put(1, { name: 5 as never }), { instanceOf: TypeError, message: /name/ });
  t.throws(() => put(1, { ttlMs: 5 }), { instanceOf: TypeError, message: /ttlMs/ });
  t.throws(() => put(1, { name: 'a', ttlMs: -1 }), { instanceOf: RangeError, message: /ttlMs/ });
  await t.throwsAsync(getNamed(undefined as never), { instanceOf: TypeError });
});
