import test from 'ava';
import { prints, programsOf } from '../support/programs.js';

const programs = await programsOf('docs/streams.md');

test('the guide has programs', (t) => {
  t.true(programs.length >= 6);
});

for (const printed of programs) {
  const title = printed.program.split('\n').find((line) => line.includes('remote(')) ?? '';
  test.serial(`the guide's program prints what it says: ${title}`, (t) =>
    prints(t, printed, (stdout) => stdout.replaceAll(/^\(.* pid=\d+\) .*\n/gm, '')),
  );
}
