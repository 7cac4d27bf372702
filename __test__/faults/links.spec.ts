/** A worker that lives, and writes nonsense to those that it is linked with. */
import { openSync, readFileSync, writeSync } from 'node:fs';
import test from 'ava';
import { get, type ObjectRef, put, remote, WorkerCrashedError } from 'heliostat';
import { eventually } from '../support/cluster.js';
import { Promises, withWatchedCluster } from '../support/promises.js';

withWatchedCluster(test);

/** Overwrites the memory of all links of the process that it runs in: what stands there cannot be understood. */
function scribble(): number {
  const memory = openSync('/proc/self/mem', 'r+');
  const links = readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .filter((line) => line.includes('memfd:heliostat-ring'));
  for (const line of links) {
    const [start, end] = line.split(/[- ]/).map((address) => Number.parseInt(address, 16)) as [number, number];
    const nonsense = Buffer.from(Array.from({ length: end - start }, (_, index) => (index * 7 + (index >> 8)) % 251));
    writeSync(memory, nonsense, 0, nonsense.length, start);
  }
  return links.length;
}

test.serial('whoever waits for a worker whose messages cannot be understood is told, and others go on', async (t) => {
  const promises = await Promises.begin(t);
  const rogue = remote(
    async () => {
      if (scribble() === 0) throw new Error('there are no links');
      await new Promise(() => {});
    },
    { maxRetries: 0 },
  );
  const square = remote((value: number) => value * value);
  const kept = put('kept');
  const holds = remote((list: ObjectRef<string>[]) => (list[0] as ObjectRef<string>).get());
  t.is(await holds.remote([kept]).get(), 'kept');
  let settled = false;
  const failing = t.throwsAsync(rogue.remote().get(), { instanceOf: WorkerCrashedError });
  void failing.then(() => {
    settled = true;
  });
  // A link is looked at when there is news of any.
  await eventually('the end of the task', async () => {
    await square.remote(1).get();
    return settled;
  });
  const error = await failing;
  t.is((error as WorkerCrashedError).exitSignal, 'SIGKILL');
  t.deepEqual(await get([1, 2, 3].map((value) => square.remote(value))), [1, 4, 9]);
  t.is(await holds.remote([kept]).get(), 'kept');
  kept[Symbol.dispose]();
  await promises.keep();
});
