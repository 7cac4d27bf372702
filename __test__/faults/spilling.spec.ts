import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { get, init, type ObjectRef, put, remote, shutdown, state } from 'heliostat';
import { collectGarbage, eventually, killed, storeIsEmpty } from '../support/cluster.js';

const MIB = 1 << 20;
const JOINED = fileURLToPath(new URL('../fixtures/spills-joined.mjs', import.meta.url));
const dir = mkdtempSync(join(tmpdir(), 'heliostat-spill-kill-'));
let address = '';

test.before(async () => {
  const context = await init({
    numCpus: 2,
    objectStoreMemory: 64 * MIB,
    objectSpilling: { uris: [dir], minSpillingSize: 8 * MIB },
    logToDriver: false,
  });
  address = context.address;
});

test.after.always(async () => {
  await shutdown();
  if (readdirSync(dir).length > 0) throw new Error(`left: ${readdirSync(dir)}`);
});

const segments = () => readdirSync(dir, { recursive: true }).filter((name) => String(name).endsWith('.seg'));
/** Keeps no view. */
const isFilled = (view: Uint8Array, value: number) => view.length === 8 * MIB && view.every((byte) => byte === value);

async function nothingIsLeft(): Promise<void> {
  await storeIsEmpty();
  await eventually('no spilled objects', async () => (await state.memory()).spilling.objects === 0);
  await eventually(
    () => `no segments (${segments()})`,
    () => segments().length === 0,
  );
}

test.serial('a driver that is killed while it spills takes its own objects with it, and no others', async (t) => {
  const mine = Array.from({ length: 12 }, (_, index) => put(new Uint8Array(8 * MIB).fill(index)));
  for (let round = 0; round < 3; round += 1) {
    const child = spawn(process.execPath, [JOINED], {
      env: { ...process.env, TEST_ADDRESS: address },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(child.stdout, 'data');
    const before = (await state.memory()).spilling.spilledBytes;
    await eventually('more is spilled', async () => (await state.memory()).spilling.spilledBytes > before);
    child.kill('SIGKILL');
    await once(child, 'close');
    await eventually('its objects are gone', async () => {
      const { objects, spilling } = await state.memory();
      return objects + spilling.objects === mine.length;
    });
  }
  for (const [index, ref] of mine.entries()) t.true(isFilled(await get(ref), index), `object ${index}`);
  for (const ref of mine) ref[Symbol.dispose]();
  await nothingIsLeft();
});

test.serial('a worker that is killed while its results are spilled loses none that others own', async (t) => {
  const make = remote((index: number) => new Uint8Array(8 << 20).fill(index), { maxRetries: 50 });
  const results: ObjectRef<Uint8Array>[] = Array.from({ length: 24 }, (_, index) => make.remote(index));
  for (let round = 0; round < 6; round += 1) {
    const before = (await state.memory()).spilling.spilledBytes;
    // The last rounds may come when all is spilled.
    const end = Date.now() + 500;
    while ((await state.memory()).spilling.spilledBytes === before && Date.now() < end)
      await new Promise((resolve) => setTimeout(resolve, 5));
    const [worker] = (await state.listWorkers()).filter((each) => each.state !== 'starting');
    if (worker !== undefined) killed(worker.pid);
  }
  for (const [index, ref] of results.entries()) t.true(isFilled(await get(ref), index), `result ${index}`);
  for (const ref of results) ref[Symbol.dispose]();
  await collectGarbage();
  await nothingIsLeft();
});
