import test from 'ava';
import { runExample } from './run-example.ts';

test('get gives up after its six seconds, and the program ends without waiting for the task', async (t) => {
  const started = performance.now();
  const { code, stdout, stderr } = await runExample('examples/timeout.ts');
  const seconds = (performance.now() - started) / 1000;
  const [, waited] = stdout.match(/^GetTimeoutError after ([\d.]+) seconds: \S/m) ?? [];
  t.truthy(waited, stdout + stderr);
  t.true(Number(waited) >= 6, `gave up after ${waited} s`);
  t.true(seconds >= 6);
  t.notRegex(stdout, /the answer is/);
  t.is(code, 0);
});
