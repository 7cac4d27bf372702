import { AsyncLocalStorage } from 'node:async_hooks';
import { EventEmitter } from 'node:events';
import { Socket } from 'node:net';
import test from 'ava';
import { encode, inspectSerializable } from '../../dist/values/index.cjs';

const local: Record<string, [value: unknown, reason: RegExp]> = {
  promise: [Promise.resolve(1), /Promise/],
  'weak map': [new WeakMap(), /weak/],
  'weak set': [new WeakSet(), /weak/],
  'weak ref': [new WeakRef({}), /weak/],
  proxy: [new Proxy({}, {}), /Proxy/],
  'proxy of an array': [new Proxy([], {}), /Proxy/],
  'proxy of a function': [new Proxy(() => 1, {}), /Proxy|native/],
  generator: [
    (function* () {
      yield 1;
    })(),
    /generator/,
  ],
  iterator: [[1][Symbol.iterator](), /iterator/],
  'map iterator': [new Map().entries(), /iterator/],
  arguments: [
    (function (..._: number[]) {
      // biome-ignore lint/complexity/noArguments: it is what is refused
      return arguments;
    })(1),
    /arguments/,
  ],
  socket: [new Socket(), /Socket.*lives in this process/],
  storage: [new AsyncLocalStorage(), /AsyncLocalStorage/],
  controller: [new AbortController(), /AbortController/],
  headers: [new Headers(), /Headers/],
  blob: [new Blob([]), /Blob/],
  timer: [setTimeout(() => {}, 1), /Timeout/],
};

for (const [name, [value, reason]] of Object.entries(local)) {
  test(`refused with its path: ${name}`, (t) => {
    const error = t.throws(() => encode({ a: [1, 2, { b: value }] }), { message: reason }) as Error & { path?: string };
    t.is(error.path, '$.a[2].b');
  });
}

test('paths through every kind of container', (t) => {
  const bad = Promise.resolve();
  const emitter = new EventEmitter();
  emitter.on('x', () => bad);
  const paths: [unknown, string][] = [
    [bad, '$'],
    [{ 'two words': bad }, '$["two words"]'],
    [new Map([['k', bad]]), '$.get("k")'],
    [new Map([[bad, 1]]), '$.<key 0>'],
    [new Set([1, bad]), '$.<item 1>'],
    [[[[bad]]], '$[0][0][0]'],
    [Object.assign([], { 7: bad }), '$[7]'],
    [{ [Symbol.for('s')]: bad }, '$[Symbol(s)]'],
    [new Error('x', { cause: bad }), '$.cause'],
    [{ fn: () => bad }, '$.fn → bad'],
    [{ fn: () => () => bad }, '$.fn → bad'],
    [Object.assign(() => 1, { extra: [bad] }), '$.extra[0]'],
    [Object.freeze({ deep: bad }), '$.deep'],
  ];
  for (const [value, path] of paths) {
    const error = t.throws(() => encode(value), { message: /Promise/ }) as Error & { path?: string };
    t.is(error.path, path);
  }
});

test('the root of paths can be named', (t) => {
  const missing = Promise.resolve();
  const error = t.throws(() => encode(() => missing, { root: 'train' })) as Error & { path?: string };
  t.is(error.path, 'train → missing');
});

test('nothing is wrong with what can be sent', (t) => {
  t.deepEqual(inspectSerializable({ a: [1, new Map([[1, { b: () => 1 }]])] }), []);
});

test('every place that cannot be sent is listed', (t) => {
  const findings = inspectSerializable({
    a: [1, new WeakMap(), { b: Promise.resolve() }],
    m: new Map<unknown, unknown>([[new WeakSet(), 2]]),
    f: () => findings,
    s: new Socket(),
    ok: 1,
  });
  t.deepEqual(
    findings.map(({ path }) => path),
    ['$.a[1]', '$.a[2].b', '$.m.<key 0>', '$.s', '$.f → findings'],
  );
  for (const { reason, hint } of findings) t.true(reason.length > 0 && typeof hint === 'string');
});

test('a value that is nested too deeply is refused, not a crash', (t) => {
  let chain: object | null = null;
  for (let i = 0; i < 100_000; i++) chain = { chain };
  t.throws(() => encode(chain), { message: /nested too deeply/ });
  t.is(inspectSerializable(chain).length > 0, true);
});

test('a refusal leaves the codec usable', (t) => {
  t.throws(() => encode([1, Promise.resolve()]));
  t.deepEqual(Array.from(encode([1]).header), Array.from(encode([1]).header));
});
