import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import test from 'ava';
import { isModel, useHiddenClasses } from '../../dist/values/hidden-classes.cjs';
import { roundTrip } from './support/peer.js';
import { difference } from './support/same.js';

type Change = readonly [key: string, attributes: PropertyDescriptor];

const CHANGES: Record<string, readonly Change[]> = {
  nothing: [],
  'an element that cannot be written': [['0', { writable: false }]],
  'an element that is not listed': [['1', { enumerable: false }]],
  'an element that stays': [['2', { configurable: false, enumerable: false }]],
  'a fixed length': [['length', { writable: false }]],
  'all of them, and a name': [
    ['1', { writable: false }],
    ['x', { value: 5, enumerable: true }],
    ['length', { writable: false }],
  ],
  'a hole, then an element like no other': [['7', { value: 3 }]],
};
const STATES = ['open', 'preventExtensions', 'seal', 'freeze'] as const;

// The engine's hidden classes spare looking at each element; what is found without them is the same.
for (const withClasses of [true, false]) {
  const how = withClasses ? 'with hidden classes' : 'without hidden classes';
  test.serial(`attributes of single elements of arrays are kept, ${how}`, (t) => {
    t.is(useHiddenClasses(withClasses), withClasses);
    for (const length of [0, 3, 100]) {
      for (const state of STATES) {
        for (const [name, changes] of Object.entries(CHANGES)) {
          const array: unknown[] = Array.from({ length }, (_, i) => ({ i }));
          for (const [key, attributes] of changes) Object.defineProperty(array, key, attributes);
          if (state !== 'open') (Object[state] as (value: unknown) => void)(array);
          const list = [array, array, 'behind'];
          t.is(difference(list, roundTrip(list)), undefined, `${length} elements, ${name}, ${state}`);
        }
      }
    }
  });

  test.serial(`an element with a getter arrives with its getter, which nobody called, ${how}`, (t) => {
    useHiddenClasses(withClasses);
    const array = [1, 2, 3];
    Object.defineProperty(array, 1, {
      get() {
        throw new Error('was called');
      },
      enumerable: true,
      configurable: true,
    });
    const back = roundTrip(array);
    t.deepEqual([back.length, back[0], back[2]], [3, 1, 3]);
    t.throws(() => back[1], { message: 'was called' });
  });
}

test.serial('an element that cannot go is named', (t) => {
  const array = Object.defineProperty([1, 2], 1, { value: Promise.resolve(), enumerable: false });
  t.throws(() => roundTrip({ list: array }), { message: /cannot send \$\.list\[1\]: is a Promise/ });
});

test.serial('a named property of an array whose text would take for ever is not asked for its text', (t) => {
  const endless: unknown[] = [];
  endless.length = 2 ** 32 - 1;
  const array = Object.assign(
    Array.from({ length: 50 }, (_, i) => i),
    { pattern: Object.defineProperty(/a/, 'source', { value: endless }) },
  );
  t.is(difference(array, roundTrip(array)), undefined);
});

test.serial('nor is a view that calls such an array its length', (t) => {
  const endless: unknown[] = [];
  endless.length = 2 ** 32 - 1;
  const view = Object.defineProperty(new Uint8Array(3000), 'length', { value: endless });
  t.is(difference(view, roundTrip(view)), undefined);
});

test.serial('properties of views of any class are found', (t) => {
  class Samples extends Float32Array {}
  const foreign = runInNewContext('new Float64Array(3000)') as Float64Array;
  for (const make of [() => new Samples(3000), () => foreign, () => new Samples(2), () => Buffer.alloc(3000)]) {
    const view = make();
    const before = roundTrip(view);
    t.deepEqual(Object.keys(before).slice(view.length), []);
    Object.assign(view, { note: 'kept' });
    t.deepEqual(Object.keys(roundTrip(view)).slice(view.length), ['note']);
  }
});

test.serial('code that the engine forgot is compiled again', (t) => {
  t.true(useHiddenClasses(true));
  setFlagsFromString('--stress-flush-code');
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const fixed = Object.defineProperty([1, 2], 0, { writable: false });
  for (let round = 0; round < 5; round++) {
    for (let i = 0; i < 10; i++) collect();
    t.is(difference([fixed, [1]], roundTrip([fixed, [1]])), undefined);
  }
});

test.serial('a value that is nested too deeply takes nothing from those after it', (t) => {
  t.true(useHiddenClasses(true));
  for (const wrap of [(inner: unknown) => ({ inner }), (inner: unknown) => [inner]]) {
    let value: unknown = 1;
    for (let depth = 0; depth < 100_000; depth++) value = wrap(value);
    t.throws(() => roundTrip(value), { message: /nested too deeply/ });
    t.true(isModel({ a: 1 }));
  }
});
