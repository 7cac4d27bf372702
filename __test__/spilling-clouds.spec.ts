import test from 'ava';
import { get, getRange, init, locate, put, shutdown, state } from 'heliostat';
import { azurite, type Cloud } from './support/clouds.js';
import { eventually, storeIsEmpty } from './support/cluster.js';

const MIB = 1 << 20;

/** How many bytes have this value; keeps no view. */
const equalBytes = (view: Uint8Array, value: number) => view.reduce((sum, byte) => sum + Number(byte === value), 0);

for (const [name, start] of [['az://, with Azurite', azurite]] as const) {
  test.serial(`objects go to ${name}, come back, and nothing stays`, async (t) => {
    const cloud: Cloud | undefined = await start();
    if (cloud === undefined) {
      t.falsy(process.env['CI'], 'in CI the emulator must be there');
      t.log('skipped: `.ci/run` says how the emulator is installed');
      return;
    }
    try {
      const { uri, storage } = cloud;
      await init({
        numCpus: 1,
        objectStoreMemory: 64 * MIB,
        // Segments of 16 MiB go in parts.
        objectSpilling: { uris: [`${uri}/deep/er`], minSpillingSize: 16 * MIB, bufferSize: 6 * MIB, storage },
      });
      const refs = Array.from({ length: 16 }, (_, index) => put(new Uint8Array(8 * MIB).fill(index)));
      t.true((await state.memory()).spilled >= 60 * MIB);
      const names = await cloud.list();
      t.true(names.filter((each) => /^deep\/er\/heliostat-spill-.*\.seg$/.test(each)).length > 2, names.join());
      t.true(
        names.some((each) => each.endsWith('/session')),
        'with a mark of who lives',
      );
      t.is((await locate(refs[0] as (typeof refs)[0])).uri, `${uri}/deep/er`);
      t.deepEqual(await getRange(refs[0] as (typeof refs)[0], 5 * MIB, 5 * MIB + 3), new Uint8Array(3));
      for (const [index, ref] of refs.entries()) {
        t.is(equalBytes(await get(ref), index), 8 * MIB);
      }
      for (const ref of refs.splice(0, 8)) ref[Symbol.dispose]();
      for (const ref of refs) ref[Symbol.dispose]();
      await storeIsEmpty();
      await eventually('no segment', async () => (await cloud.list()).every((each) => !each.endsWith('.seg')));
      await shutdown();
      t.deepEqual(await cloud.list(), []);
    } finally {
      await shutdown();
      cloud.end();
    }
  });
}
