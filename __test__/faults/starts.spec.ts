import test from 'ava';
import { remote, state } from 'heliostat';
import { eventually, killed } from '../support/cluster.js';
import { Promises, withWatchedCluster } from '../support/promises.js';

withWatchedCluster(test);

test.serial('workers that are killed while they start are started again, and what is queued runs', async (t) => {
  const promises = await Promises.begin(t);
  const work = remote((x: number) => x + 1, { maxRetries: 0 });
  for (const { pid } of await state.listWorkers()) killed(pid);
  await eventually('the end of all workers', async () =>
    (await state.listWorkers()).every((worker) => worker.state === 'starting'),
  );
  const outcomes = Array.from({ length: 20 }, (_, index) => promises.settle(work.remote(index)));
  const ended = new Set<number>();
  await eventually('more deaths than failed starts that end all requests', async () => {
    for (const worker of await state.listWorkers()) {
      if (worker.state !== 'starting' || worker.pid === 0 || ended.has(worker.pid)) continue;
      if (killed(worker.pid)) ended.add(worker.pid);
    }
    return ended.size >= 4;
  });
  for (const [index, { value, error }] of (await Promise.all(outcomes)).entries())
    t.is(value, index + 1, error?.message);
  await promises.keep();
});
