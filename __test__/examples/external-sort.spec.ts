import test from 'ava';
import { runExample } from './run-example.ts';

test('four times the store is sorted, and every byte is there', async (t) => {
  const { code, stdout, stderr } = await runExample('examples/external-sort.ts', ['256', '64']);
  t.is(stdout, '262144 records, 256 MiB, in a store of 64 MiB\n262144 records are in order in 32 parts\n', stderr);
  const [, spilled, restored] = /(\d+) MiB were spilled and (\d+) MiB brought back/.exec(stderr) ?? [];
  t.true(Number(spilled) > 192 && Number(restored) > 192, stderr);
  t.is(code, 0);
});
