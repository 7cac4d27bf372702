/** Objects of one shape: what is spared where one was looked at, and the code that is made to read them. */
import { execFileSync } from 'node:child_process';
import test from 'ava';
import { useHiddenClasses } from '../../dist/values/hidden-classes.cjs';
import { deregisterSerializer, registerSerializer } from '../../dist/values/serializers.cjs';
import { roundTrip, VALUES } from './support/peer.js';
import { difference } from './support/same.js';

type Odd = (object: Record<string, unknown>) => object;

const ODD: Record<string, Odd> = {
  'a fixed property': (o) => Object.defineProperty(o, 'b', { writable: false }),
  'a hidden property': (o) => Object.defineProperty(o, 'b', { enumerable: false }),
  'a getter': (o) => Object.defineProperty(o, 'b', { get: () => 1, enumerable: true }),
  'a symbol': (o) => Object.assign(o, { [Symbol.iterator]: 1 }),
  'another key': (o) => Object.assign(o, { c: 1 }),
  'a key less': (o) => {
    Reflect.deleteProperty(o, 'b');
    return o;
  },
  'an element': (o) => Object.assign(o, { 3: 'three' }),
  'a hidden element': (o) => Object.defineProperty(o, 3, { value: 'three' }),
  'no more keys': (o) => Object.preventExtensions(o),
  'frozen properties': (o) => Object.freeze(o),
  'another prototype': (o) => Object.setPrototypeOf(o, null) as object,
  'a function': (o) => Object.assign(o, { b: Math.max }),
};

const make = (i: number): Record<string, unknown> => ({ a: i, b: `b${i}` });

for (const [name, change] of Object.entries(ODD)) {
  test.serial(`one object among many alike, with ${name}`, (t) => {
    t.true(useHiddenClasses(true));
    for (const place of [0, 1, 50, 99]) {
      const list = Array.from({ length: 100 }, (_, i) => (i === place ? change(make(i)) : make(i)));
      t.is(difference(list, roundTrip(list)), undefined, `at ${place}`);
    }
    const all = Array.from({ length: 20 }, (_, i) => change(make(i)));
    t.is(difference(all, roundTrip(all)), undefined, 'all of them');
  });
}

test.serial('an object whose first key is an index says nothing about others', (t) => {
  const list = [{ 0: 'x', a: 1 }, { 0: 'x', 1: 'y', a: 1 }, { 0: 'x', a: 1 }, { 5: 'z', a: 1 }, { a: 1 }];
  t.is(difference(list, roundTrip(list)), undefined);
});

test.serial('a serializer that changes objects which were looked at is noticed', (t) => {
  class Trick {}
  const looked = [make(1), make(2)];
  const later = [make(3), make(4)];
  registerSerializer(Trick, {
    serialize() {
      for (const object of [...looked, ...later]) Object.defineProperty(object, 'b', { value: 7, writable: false });
      return 1;
    },
    deserialize: () => new Trick(),
  });
  const [before, , after] = roundTrip([looked, new Trick(), later]);
  deregisterSerializer(Trick);
  t.deepEqual(before, [
    { a: 1, b: 'b1' },
    { a: 2, b: 'b2' },
  ]);
  for (const object of after as object[]) {
    t.deepEqual(Object.getOwnPropertyDescriptor(object, 'b'), {
      value: 7,
      writable: false,
      enumerable: true,
      configurable: true,
    });
  }
});

test.serial('keys of any text are read by code that was made for them', (t) => {
  const keys = ['"', "'", '\\', '\n', '\u2028', '\u2029', '`', '$', '*/', '日本', '\ud800', ' ', '0x', 'a-b', ''];
  const list = Array.from({ length: 200 }, (_, i) => Object.fromEntries(keys.map((key, k) => [key, i + k])));
  for (let round = 0; round < 3; round++) t.is(difference(list, roundTrip(list)), undefined);
  const special = Array.from({ length: 200 }, (_, i) => JSON.parse(`{"a": ${i}, "__proto__": {"x": ${i}}}`) as object);
  t.is(difference(special, roundTrip(special)), undefined);
  const inherited = Array.from({ length: 200 }, (_, i) => ({ constructor: i, toString: i, hasOwnProperty: i }));
  t.is(difference(inherited, roundTrip(inherited)), undefined);
});

test.serial('what a program adds to all objects does not come between', (t) => {
  const few = [{ later1: 1 }];
  const many = Array.from({ length: 200 }, (_, i) => ({ later2: i }));
  roundTrip([few, many]);
  let calls = 0;
  const attributes = { set: () => calls++, configurable: true };
  Object.defineProperties(Object.prototype, { later1: attributes, later2: attributes });
  try {
    const [fewBack, manyBack] = roundTrip([few, many]);
    t.true(Object.hasOwn(fewBack?.[0] as object, 'later1') && manyBack?.every((each) => Object.hasOwn(each, 'later2')));
    t.is(calls, 0);
  } finally {
    for (const name of ['later1', 'later2']) Reflect.deleteProperty(Object.prototype, name);
  }
});

test.serial('objects that are met again are one, however late', (t) => {
  const many = Array.from({ length: 1000 }, (_, i) => ({ i }));
  const cyclic: Record<string, unknown> = { many };
  cyclic['self'] = cyclic;
  for (const value of [
    [many, many[0], many[999], many],
    [many[5], many[5]],
    cyclic,
    [new Map([[many[1], many[2]]]), many[2], new Set([many[1]])],
    [[], many, Symbol.for('x'), Symbol.for('x')],
    many,
  ]) {
    t.is(difference(value, roundTrip(value)), undefined);
    t.is(difference(value, roundTrip(value)), undefined, 'again');
  }
});

test('objects are read where code from strings is forbidden', (t) => {
  const script = `
    const { encode, decode } = require(${JSON.stringify(VALUES)});
    const list = Array.from({ length: 500 }, (_, i) => ({ i, name: 'n' + i }));
    const back = decode({ header: encode(list).header.slice(), buffers: [], refs: () => ({}) });
    require('node:assert').deepStrictEqual(back, list);
    process.stdout.write('same');`;
  t.is(String(execFileSync(process.execPath, ['--disallow-code-generation-from-strings', '-e', script])), 'same');
});
