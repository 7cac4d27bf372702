import test from 'ava';
import { runExample } from './run-example.ts';

test('a write into an array of the store fails, a write into its copy does not, and the store keeps its bytes', async (t) => {
  const { code, stdout, stderr } = await runExample('examples/read-only.ts');
  const immutable = Number(process.versions.node.split('.')[0]) >= 26;
  const refused = immutable
    ? /^without a copy: TypeError: Cannot assign to read only property '0'/m
    : /^without a copy: ReadOnlyObjectError: /m;
  t.regex(stdout, refused, stderr);
  t.regex(stdout, /^with \.slice\(\): 100000 numbers, from 1 to 1$/m);
  t.regex(stdout, /^in the store: still zeros$/m);
  t.is(code, 0);
});
