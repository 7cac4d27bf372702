import { createRequire } from 'node:module';
import test from 'ava';
import * as imported from 'heliostat';

const required = createRequire(import.meta.url)('heliostat');

test('import and require give the same functions and classes', (t) => {
  const names = Object.keys(imported).filter((name) => name !== 'default' && name !== 'module.exports');
  t.deepEqual(names.sort(), Object.keys(required).sort());
  for (const name of names) t.is(imported[name as keyof typeof imported], required[name], name);
});

test('an error made by one entry is an instance of its class in the other', (t) => {
  const ref = Reflect.construct(Object, [], required.ObjectRef);
  t.true(ref instanceof imported.ObjectRef);
  const error = Reflect.construct(Error, ['late'], required.GetTimeoutError);
  t.true(error instanceof imported.HeliostatError);
});
