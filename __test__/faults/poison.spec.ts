import { appendFileSync } from 'node:fs';
import test from 'ava';
import { isHeliostatError, remote } from 'heliostat';
import { Promises, withWatchedCluster } from '../support/promises.js';

withWatchedCluster(test);

const deaths: { name: string; die: () => unknown }[] = [
  { name: 'exits', die: () => process.exit(9) },
  { name: 'is killed', die: () => process.kill(process.pid, 'SIGKILL') },
  { name: 'aborts', die: () => process.abort() },
];

for (const { name, die } of deaths) {
  test.serial(`a task that ${name} each time fails after its retries; innocent ones are not charged`, async (t) => {
    const promises = await Promises.begin(t);
    const { journal } = promises;
    const poison = remote(
      (index: number) => {
        appendFileSync(journal, `poison ${index}\n`);
        die();
        // A signal takes a moment.
        for (;;);
      },
      { maxRetries: 2 },
    );
    // One charge would be its failure.
    const innocent = remote(
      (index: number) => {
        appendFileSync(journal, `innocent ${index}\n`);
        return index * 2;
      },
      { maxRetries: 0 },
    );
    const poisons = [];
    const innocents = [];
    for (let index = 0; index < 300; index += 1) {
      if (index % 60 === 30) poisons.push(promises.settle(poison.remote(index)));
      innocents.push(promises.settle(innocent.remote(index)));
    }
    for (const [index, outcome] of (await Promise.all(innocents)).entries()) {
      t.is(outcome.value, index * 2, outcome.error?.message);
    }
    for (const { error } of await Promise.all(poisons)) t.true(isHeliostatError(error, 'WORKER_CRASHED'), `${error}`);
    for (const [task, times] of promises.executions()) t.is(times, task.startsWith('poison') ? 3 : 1, task);
    t.is(promises.executions().size, 305);
    await promises.keep();
  });
}
