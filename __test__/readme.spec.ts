import test from 'ava';
import { type Printed, prints, programsOf } from './support/programs.js';

test("the README's first program prints what the README says", async (t) => {
  const [first] = await programsOf('README.md');
  await prints(t, first as Printed);
});
