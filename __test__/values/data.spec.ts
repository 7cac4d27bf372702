// biome-ignore-all lint/suspicious/noSparseArray: holes are what is tested
import test from 'ava';
import { decode } from '../../dist/values/index.cjs';
import { pack, roundTrip } from './support/peer.js';
import { difference } from './support/same.js';

const shared = { inside: true };
const cyclic: Record<string, unknown> = { name: 'cycle' };
cyclic['self'] = [cyclic];
const withCause = new RangeError('bad', { cause: { a: 1 } });
Object.assign(withCause, { code: 'E1', details: { list: [1] } });
const matched = 'xabcx'.match(/b(c)/);

const values: Record<string, unknown> = {
  undefined: undefined,
  null: null,
  booleans: [true, false],
  integers: [0, 1, 127, 128, -1, -128, 2 ** 31 - 1, -(2 ** 31), 2 ** 31, 2 ** 53, -(2 ** 40)],
  numbers: [-0, Number.NaN, Infinity, -Infinity, 0.1, 5e-324, 1.7976931348623157e308],
  'minus zero alone': -0,
  'array of doubles': Array.from({ length: 100 }, (_, i) => i / 3),
  'doubles with -0 and NaN': [1.5, -0, Number.NaN, 3],
  bigints: [0n, 1n, -1n, 255n, 2n ** 64n, -(2n ** 90n)],
  strings: ['', 'a', 'héllo', 'x'.repeat(5000), '日本', '日本'.repeat(3000), 'a'.repeat(39), 'é'.repeat(41)],
  surrogates: ['\ud800', '\udc00x', 'a\ud83d\ude00b', `${'z'.repeat(100)}\ud800`],
  'short strings of every length': Array.from({ length: 30 }, (_, i) => 'abcdefghijklmnopqrstuvwxyz0123'.slice(0, i)),
  'long strings': [
    'x'.repeat(300_000),
    `${'é'.repeat(262_143)}y`,
    'z'.repeat(262_143),
    `${'日'.repeat(200_000)}\ud800`,
    `\udc00${'w'.repeat(131_071)}`,
    new Map([['k'.repeat(400_000), ['v'.repeat(400_001)]]]),
  ],
  'a dictionary with long strings': Object.fromEntries(
    Array.from({ length: 70 }, (_, i) => [`key ${i}`, i === 40 ? 'x'.repeat(1e6) : i]),
  ),
  dates: [new Date(0), new Date(8.64e15), new Date(Number.NaN)],
  'regular expressions': [/a(?<n>b)/giu, /\//, Object.assign(/x/g, { lastIndex: 3 })],
  map: new Map<unknown, unknown>([
    ['a', 1],
    [{ x: 1 }, new Set([1, 'b', null])],
    [Number.NaN, undefined],
  ]),
  'empty containers': [{}, [], new Map(), new Set()],
  'sparse array': [1, , 3, , ,],
  'long sparse array': Object.assign([], { 5: 'x', length: 4294967295 }),
  'undefined is no hole': [undefined, , undefined],
  boxed: [Object(1), Object(-0), Object('abc'), Object(true), Object(3n), Object(Symbol.iterator)],
  urls: [new URL('https://user@a.b:8/c?d=e#f'), new URLSearchParams('a=1&a=2&b=%20')],
  'keys that look special': JSON.parse(
    '{"__proto__": {"x": 1}, "constructor": 5, "toString": 1, "0": "zero", "": "empty"}',
  ),
  'null prototype': Object.assign(Object.create(null), { a: 1, ['__proto__']: 2 }),
  'shared symbols': {
    [Symbol.iterator]: 1,
    [Symbol.for('some key')]: 2,
    list: [Symbol.for('x'), Symbol.asyncIterator],
  },
  'dictionary of many keys': Object.fromEntries(Array.from({ length: 200 }, (_, i) => [`key ${i}`, i])),
  'attributes of properties': Object.defineProperties({ a: 1 }, { b: { value: 2 }, c: { value: 3, enumerable: true } }),
  extensibility: [
    Object.freeze({ a: [1] }),
    Object.seal({ b: 1 }),
    Object.preventExtensions({}),
    Object.freeze([1, 2]),
  ],
  'array with named properties': matched,
  'long array with named properties': Object.assign(
    Array.from({ length: 500 }, (_, i) => i),
    { note: 'x' },
  ),
  errors: [new Error('a'), new TypeError('b'), withCause, new AggregateError([new Error('x'), 1], 'several')],
  'error without a stack': (() => {
    const error = new Error('plain');
    delete error.stack;
    return error;
  })(),
  'dom exception': new DOMException('gone', 'AbortError'),
  'same object twice': [shared, shared, { shared }],
  cycle: cyclic,
  'many objects of one shape': Array.from({ length: 300 }, (_, i) => ({ id: i, name: `n${i}`, on: i % 2 === 0 })),
  'objects of one shape and other order': [
    { a: 1, b: 2 },
    { b: 2, a: 1 },
  ],
  'typed arrays': [
    new Int8Array([1, -2]),
    new Uint8Array(3),
    new Uint8ClampedArray([300]),
    new Int16Array([-1]),
    new Uint16Array([1]),
    new Int32Array([-5]),
    new Uint32Array([5]),
    new Float32Array([1.5, Number.NaN]),
    new Float64Array([-0, 0.1]),
    new BigInt64Array([-1n]),
    new BigUint64Array([2n ** 63n]),
    new Float64Array(0),
  ],
  'node buffer': Buffer.from('hello'),
  'array buffer': new Uint8Array([1, 2, 3]).buffer,
  'empty array buffer': new ArrayBuffer(0),
};

for (const [name, value] of Object.entries(values)) {
  test(`round trip: ${name}`, (t) => {
    t.is(difference(value, roundTrip(value)), undefined);
    t.false(pack(value).functions);
  });
}

test('round trip: everything at once, and again in the same process', (t) => {
  t.is(difference(values, roundTrip(values)), undefined);
  t.is(difference(values, roundTrip(values)), undefined);
});

test('a unique symbol comes home as itself', (t) => {
  const mine = Symbol('mine');
  const back = roundTrip({ [mine]: 1, same: mine });
  t.is(back.same, mine);
  t.is(back[mine], 1);
});

test('accessors stay accessors', (t) => {
  const back = roundTrip({
    base: 2,
    get double() {
      return this.base * 2;
    },
  });
  back.base = 5;
  t.is(back.double, 10);
});

test('a name that is a setter of a prototype becomes an own property', (t) => {
  class Guarded {
    set value(_: number) {
      throw new Error('called');
    }
  }
  const guarded = Object.defineProperty(new Guarded(), 'value', {
    value: 3,
    writable: true,
    enumerable: true,
    configurable: true,
  });
  const back = roundTrip(guarded);
  t.deepEqual(Object.getOwnPropertyDescriptor(back, 'value')?.value, 3);
});

test('thousands of shapes do not disturb one another', (t) => {
  const many = Array.from({ length: 12_000 }, (_, i) => ({ [`a${i % 6000}`]: i, b: 1 }));
  t.deepEqual(roundTrip(many), many);
  t.deepEqual(roundTrip({ a: 1, b: 2 }), { a: 1, b: 2 });
});

test('small values take few bytes', (t) => {
  t.is(pack(5).header.length, 7);
  t.true(pack({ id: 12345, name: 'task-17', ok: true, score: 0.731, tags: ['a', 'bc'] }).header.length < 80);
});

test('long strings travel beside the header, each once, and let their memory go', (t) => {
  const value = { narrow: 'n'.repeat(2 ** 20), wide: '日'.repeat(2 ** 20), bytes: new Uint8Array(5000).fill(1) };
  const { header, buffers } = pack(value);
  t.true(header.length < 200);
  t.deepEqual(
    buffers.map(({ byteLength }) => byteLength).toSorted((a, b) => a - b),
    [5000, 2 ** 20, 2 ** 21],
  );
  const released: number[] = [];
  const release = (buffer: ArrayBuffer) => released.push(buffer.byteLength);
  t.deepEqual(decode({ header, buffers, refs: () => ({}), release }), value);
  t.deepEqual(
    released.toSorted((a, b) => a - b),
    [2 ** 20, 2 ** 21],
  );
});
