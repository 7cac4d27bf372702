import { createContext, runInContext, Script } from 'node:vm';
import test from 'ava';
import { pack, roundTrip } from './support/peer.js';
import { difference } from './support/same.js';

const context = createContext({ shared: new Float64Array([1, 2]) });
const there = (source: string): any => runInContext(`(${source})`, context);

/** Sources of values: made in another realm they must arrive as what they are when they are made here. */
const sources = [
  '{ a: 1, b: [1, [2, { c: 3 }]], d: { e: {} } }',
  '[1, "two", null, undefined, [3.5]]',
  'Object.assign([1, 2], { named: true })',
  'Array.from({ length: 100 }, (_, i) => i / 2)',
  'new Map([[1, new Set(["a", new Map()])]])',
  'new Date(7)',
  '/a(b)/giu',
  'new ArrayBuffer(2000)',
  'new SharedArrayBuffer(8)',
  'new DataView(new ArrayBuffer(16), 4)',
  'new Uint8Array([1, 2, 3])',
  'new Float64Array(500).fill(1.5)',
  'new BigInt64Array([1n])',
  'Object.freeze({ a: Object.freeze([1]) })',
  'Object.defineProperty({}, "hidden", { value: [1] })',
  '[Object(1), Object("x"), Object(true), Object(1n)]',
  'Object.create(null)',
  '[1, , 3]',
];

for (const source of sources) {
  test(`of another realm: ${source}`, async (t) => {
    const here = new Script(`(${source})`).runInThisContext() as unknown;
    const value = there(source);
    t.is(difference(here, await roundTrip(value)), undefined);
    t.is(difference([here], await roundTrip([value])), undefined);
  });
}

test('errors of another realm keep class, fields and stack', async (t) => {
  for (const name of ['Error', 'TypeError', 'RangeError', 'SyntaxError', 'AggregateError']) {
    const argument = name === 'AggregateError' ? '[[new TypeError("in")], "odd"]' : '["odd"]';
    const value = there(`Object.assign(new ${name}(...${argument}), { code: "E", list: [1] })`);
    const back = (await roundTrip(value)) as Error & { code: string; list: unknown };
    const type = (globalThis as any)[name];
    t.false(value instanceof Error);
    t.is(Object.getPrototypeOf(back), type.prototype);
    t.is(back.message, 'odd');
    t.is(back.code, 'E');
    t.is(Object.getPrototypeOf(back.list), Array.prototype);
    t.is(back.stack, value.stack);
    if (name === 'AggregateError') t.true((back as unknown as AggregateError).errors[0] instanceof TypeError);
  }
});

test('identity and cycles hold across realms', async (t) => {
  const value = there('(() => { const a = []; a.push(a, { a }); return a; })()');
  const back = (await roundTrip({ one: value, two: value })) as any;
  t.is(back.one, back.two);
  t.is(back.one[0], back.one);
  t.is(back.one[1].a, back.one);
});

test('what lives in its process is refused from any realm', (t) => {
  const cases: Record<string, RegExp> = {
    'new WeakMap()': /weak/,
    'new WeakRef({})': /weak/,
    'Promise.resolve(1)': /Promise/,
    'new Proxy({}, {})': /Proxy/,
    '[1].values()': /iterator/,
    '(function* () {})()': /generator/,
  };
  for (const [source, message] of Object.entries(cases)) t.throws(() => pack(there(source)), { message }, source);
});

test('classes of the program that are called like builtins stay what they are', async (t) => {
  class Own {
    entries = 1;
  }
  const MyMap = Object.defineProperty(Own, 'name', { value: 'Map' });
  const back = (await roundTrip(new MyMap())) as object;
  t.not(Object.getPrototypeOf(back), Map.prototype);
  t.deepEqual({ ...back }, { entries: 1 });
});

test('classes that extend a builtin of another realm', async (t) => {
  const Foreign = there('class Point extends Array { norm() { return Math.hypot(...this); } }');
  const back = (await roundTrip(Foreign.from([3, 4]))) as any;
  t.is(back.constructor.name, 'Point');
  t.is(back.norm(), 5);
  t.deepEqual([...back], [3, 4]);
});

test('functions of another realm arrive as functions of this one', async (t) => {
  const back = (await roundTrip(there('(x) => [x, Math.max(1, x), [].concat(x)]'))) as any;
  t.true(back instanceof Function);
  t.deepEqual(back(2), [2, 2, [2]]);
});

test('counters of coverage do not travel', async (t) => {
  const made = new Script(`(() => {
    function cov_abc123() { const coverage = { path: '/x', s: { 0: 41 }, name: '__coverage__' }; cov_abc123 = () => coverage; return coverage; }
    cov_abc123();
    return (x) => { cov_abc123().s[0]++; cov_abc123().b[1][0]++; return x + 1; };
  })()`).runInThisContext() as (x: number) => number;
  const { header } = pack(made);
  t.false(Buffer.from(header).includes('__coverage__'));
  t.is(((await roundTrip(made)) as typeof made)(1), 2);
});
