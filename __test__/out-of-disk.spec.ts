import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { get, OutOfDiskError, put, putAsync } from 'heliostat';
import { storeIsEmpty, withCluster } from './support/cluster.js';

const MIB = 1 << 20;
// No directory can be made below a file.
const file = join(mkdtempSync(join(tmpdir(), 'heliostat-disk-test-')), 'file');
writeFileSync(file, '');

withCluster(test, {
  objectStoreMemory: 64 * MIB,
  objectSpilling: { uris: [join(file, 'below')] },
  putTimeoutMs: 3000,
});

test('where the storage refuses, the error says so and the objects stay readable', async (t) => {
  const refs = Array.from({ length: 7 }, (_, index) => put(new Uint8Array(8 * MIB).fill(index)));
  const error = t.throws(() => put(new Uint8Array(30 * MIB)), { instanceOf: OutOfDiskError });
  t.is(error.code, 'OUT_OF_DISK');
  t.regex(error.message, /spilling failed.*below.*biggest holders/);
  await t.throwsAsync(putAsync(new Uint8Array(30 * MIB)), { instanceOf: OutOfDiskError });
  for (const [index, ref] of refs.entries()) t.is((await get(ref))[1], index);
  // Room can still be made by whoever lets go.
  for (const ref of refs.splice(0, 5)) ref[Symbol.dispose]();
  const more = put(new Uint8Array(30 * MIB).fill(9));
  t.is((await get(more))[0], 9);
  more[Symbol.dispose]();
  for (const ref of refs) ref[Symbol.dispose]();
  await storeIsEmpty();
});
