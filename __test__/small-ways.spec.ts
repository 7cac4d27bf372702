import test from 'ava';
import { free, get, put, registerSerializer, remote } from 'heliostat';
import { storeIsEmpty, withCluster } from './support/cluster.js';

withCluster(test, { inlineLimit: 2048 });

class Fragile {
  constructor(readonly text: string) {}
}
registerSerializer(Fragile, {
  serialize: ({ text }) => text,
  deserialize: (text: string) => {
    if (text === 'broken') throw new RangeError('cannot be made here');
    return new Fragile(text);
  },
});

class Once {
  constructor(readonly items: number[]) {}
}
registerSerializer(Once, {
  serialize: (value: Once) => value.items.splice(0),
  deserialize: (items: number[]) => new Once(items),
});

test.serial('a value that cannot be made here rejects its get, and nothing else', async (t) => {
  const broken = put(new Fragile('broken'));
  const late = remote(async (value: string) => {
    await new Promise((resolve) => setTimeout(resolve, 50));
    return value;
  });
  const fine = late.remote('fine');
  await t.throwsAsync(() => get(broken), { message: /cannot be made here/ });
  t.is(await fine.get(), 'fine');
});

test.serial('a result is encoded once', async (t) => {
  const ref = remote((n: number) => ({
    once: new Once(Array.from({ length: n }, (_, index) => index)),
    large: new Uint8Array(5_000),
  })).remote(3);
  t.deepEqual((await ref.get()).once.items, [0, 1, 2]);
});

test.serial('the inline limit holds for small values too', async (t) => {
  const { locate } = await import('heliostat');
  for (const [length, state] of [
    [1_900, 'inline'],
    [4_000, 'memory'],
  ] as const) {
    const text = 'x'.repeat(length);
    const ref = put(text);
    t.is((await locate(ref)).state, state);
    const echoed = remote((value: string) => value).remote(text);
    t.is(await echoed.get(), text);
    t.is((await locate(echoed)).state, state);
    for (const each of [ref, echoed]) each[Symbol.dispose]();
  }
  await storeIsEmpty();
});

test.serial('a stored argument that is freed before its task begins fails the task, not its worker', async (t) => {
  const pid = remote(() => process.pid);
  const large = put(new Uint8Array(300_000));
  const blocker = remote((ms: number) => {
    const end = Date.now() + ms;
    while (Date.now() < end);
    return process.pid;
  });
  await Promise.all([1, 2, 3, 4].map(() => blocker.remote(1).get()));
  const blockers = [blocker.remote(300), blocker.remote(300), blocker.remote(300), blocker.remote(300)];
  const late = remote((bytes: Uint8Array) => bytes.length, { maxRetries: 0 }).remote(large);
  free(large);
  const error = await t.throwsAsync(late.get());
  t.regex((error as { code?: string }).code ?? '', /OBJECT_FREED/);
  const pids = await get(blockers);
  t.true(pids.includes(await pid.remote().get()), 'the workers live on');
});

test.serial('a wait that a task left behind holds up nothing', async (t) => {
  const never = remote(() => new Promise(() => {}), { numCpus: 0 }).remote();
  const leaves = remote(async ({ ref }: { ref: typeof never }) => {
    await Promise.race([ref.get().catch(() => undefined), new Promise((resolve) => setTimeout(resolve, 30))]);
    return process.pid;
  });
  await get([1, 2, 3, 4].map(() => leaves.remote({ ref: never })));
  const quick = remote((n: number) => n + 1);
  for (let round = 0; round < 50; round++) t.is(await quick.remote(round).get(), round + 1);
  const { cancel } = await import('heliostat');
  await cancel(never, { force: true });
});

test.serial('timers go on while messages follow each other closely', async (t) => {
  // Tasks that want different resources have different workers, so that each hop of the chain passes through here.
  const hops = [1, 0.5].map((numCpus) => remote((n: number) => n + 1, { numCpus }));
  const next = (index: number) => hops[index % 2] as (typeof hops)[0];
  let ticks = 0;
  const timer = setInterval(() => {
    ticks += 1;
  }, 1);
  let last = next(0).remote(0);
  for (let index = 1; index < 10_000; index++) last = next(index).remote(last);
  ticks = 0;
  const value = await get(last);
  clearInterval(timer);
  t.is(value, 10_000);
  t.true(ticks > 5, `${ticks} ticks of a millisecond while a chain of 10,000 tasks ran`);
});

test.serial('small arrays that came out of the store are sent on', async (t) => {
  const small = Uint8Array.of(1, 2, 3);
  const again = remote((value: { bytes: Uint8Array }) => ({ bytes: value.bytes }));
  const first = await again.remote(put({ bytes: small })).get();
  t.deepEqual((await again.remote(first).get()).bytes, small);
  t.deepEqual((await put({ more: first.bytes }).get()).more, small);
});
