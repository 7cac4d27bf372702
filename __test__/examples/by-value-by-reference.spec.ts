import test from 'ava';
import { runExample } from './run-example.ts';

test('values and top-level references arrive as values, nested references as references', async (t) => {
  const { code, stdout, stderr } = await runExample('examples/by-value-by-reference.ts');
  const lines = stdout.trimEnd().split('\n');
  const [, id] = lines[0]?.match(/^x is stored as (ObjectRef\([0-9a-f]{56}\))$/) ?? [];
  t.truthy(id, stdout + stderr);

  const echoed = lines.filter((line) => line.startsWith('(echo pid='));
  const text = echoed.map((line) => line.replace(/^\(echo pid=\d+\) current value of argument x: /, ''));
  t.deepEqual(text, ['[ 0, 1, 2, 3, 4 ]', '[ 0, 1, 2, 3, 4 ]', `{ obj: ${id} }`, `[ ${id} ]`]);

  const got = lines.slice(1).filter((line) => !line.startsWith('(echo pid='));
  t.deepEqual(got, [
    'by value: [ 0, 1, 2, 3, 4 ]',
    'by reference, at the top level: [ 0, 1, 2, 3, 4 ]',
    `inside an object: { obj: ${id} }`,
    `inside an array: [ ${id} ]`,
  ]);
  t.is(code, 0);
});
