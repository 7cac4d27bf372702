/** Functions that take much data along: they work, and whoever sends one is told once how to do better. */
import { once } from 'node:events';
import test from 'ava';
import { get, put, remote } from 'heliostat';
import { withCluster } from '../support/cluster.js';

withCluster(test);

const table = new Float64Array(400_000).fill(1);
const small = new Float64Array(1000).fill(2);

interface Warning extends Error {
  code?: string;
  detail?: string;
}

/** The warnings of this package so far. */
const warnings: Warning[] = [];
process.on('warning', (warning: Warning) => {
  if (warning.code === 'LARGE_CAPTURE') warnings.push(warning);
});
const turn = () => new Promise((resolve) => setImmediate(resolve));

test.serial('large captured data is named once for each function, with the fix', async (t) => {
  const sum = () => table.reduce((total, n) => total + n, 0) + small.length;
  const warned = once(process, 'warning');
  t.is(await get(remote(sum).remote()), 401_000);
  await warned;
  t.is(warnings.length, 1);
  t.regex(warnings[0]?.message ?? '', /^sum takes 3\.1 MiB of captured data along, most of it in table$/);
  t.regex(warnings[0]?.detail ?? '', /const ref = put\(table\); task\.remote\(ref\)/);

  // The same function again, with other data: no second warning.
  table[0] = 5;
  t.is(await get(remote(sum).remote()), 401_004);
  await turn();
  t.is(warnings.length, 1);
});

test.serial('the fix is quiet, and so is what is small', async (t) => {
  const before = warnings.length;
  const ref = put(table);
  const sum = remote((list: Float64Array) => list.length + small.length);
  t.is(await get(sum.remote(ref)), 401_000);
  const captured = remote(async () => (await get(ref)).length);
  t.is(await get(captured.remote()), 400_000);
  await turn();
  t.is(warnings.length, before);
});
