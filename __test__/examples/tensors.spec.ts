import test from 'ava';
import { runExample } from './run-example.ts';

test('a hundred tensors are put, transposed by tasks and gathered in order', async (t) => {
  const { code, stdout, stderr } = await runExample('examples/tensors.ts');
  // The sum of (i + 1) * 25 * 50 over a hundred tensors, four bytes each.
  t.regex(stdout, /^put 100 tensors, 25250000 bytes; the first is ObjectRef\([0-9a-f]{56}\)$/m, stderr);
  t.regex(stdout, /^tensor 0: \(25, 50\) -> \(50, 25\)$/m);
  t.regex(stdout, /^tensor 99: \(2500, 50\) -> \(50, 2500\)$/m);
  t.regex(stdout, /^100 of 100 tensors came back transposed$/m);
  t.regex(stdout, /^0 bytes were copied into the store$/m);
  t.is(code, 0);
});
