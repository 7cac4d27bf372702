// biome-ignore-all lint/complexity/noUselessThisAlias: it is what is sent
// biome-ignore-all lint/suspicious/noAssignInExpressions: expressions keep the table readable
// biome-ignore-all lint/complexity/noCommaOperator: expressions keep the table readable
// biome-ignore-all lint/complexity/noStaticOnlyClass: classes are what is sent
// biome-ignore-all lint/complexity/noArguments: it is what is sent
// biome-ignore-all lint/style/useTemplate: one path is built step by step
// Functions of every shape. Each is sent to a process of its own and must do there what it does here.
import { AsyncLocalStorage } from 'node:async_hooks';
import { EventEmitter } from 'node:events';
import fs, { createReadStream, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import net from 'node:net';
import os from 'node:os';
import * as path from 'node:path';
import { promisify } from 'node:util';
import { describe, kind } from 'dual';
import collect from 'plain-cjs';
import * as esm from 'plain-esm';
import label, { limits, Point, Sealed, twice } from 'plain-esm';
import * as util from './util.mjs';
import half, { bump, countCalls, FACTOR, seen, triple, Vector } from './util.mjs';

const lib = createRequire(import.meta.url)('./lib.cjs');

const K = 10;
const counter = 100;
const table = { a: 1, nested: { b: [1, 2, { c: 3 }] } };
const factorial = (n) => (n <= 1 ? 1 : n * factorial(n - 1));
const isEven = (n) => (n === 0 ? true : isOdd(n - 1));
const isOdd = (n) => (n === 0 ? false : isEven(n - 1));
const cyclic = { n: 1 };
cyclic.self = cyclic;
const makeCounter = (n) => ({ increment: () => ++n, read: () => n });
const makeBare = (n) => () => ++n;
const bareA = makeBare(0);
const bareB = makeBare(0);
const bareC = makeBare(5);
const { increment: inc, read: peek } = makeCounter(7);

class Animal {
  constructor(name) {
    this.name = name;
  }
  say() {
    return `${this.name}!`;
  }
  get loud() {
    return this.say().toUpperCase();
  }
  static make(name) {
    return new this(name);
  }
}
class Dog extends Animal {
  say() {
    return `dog ${super.say()}`;
  }
}
class Private {
  static #made = 0;
  static count = 0;
  static {
    Private.count = 7;
  }
  static made() {
    return Private.#made;
  }
  static has(o) {
    return #value in o;
  }
  #value;
  #other = 5;
  constructor(value) {
    this.#value = value;
    Private.#made++;
  }
  get value() {
    return this.#value + this.#other;
  }
  set value(v) {
    this.#value = v;
  }
  #hidden() {
    return this.#value * 2;
  }
  double() {
    return this.#hidden();
  }
}
const secret = new Private(4);
Private.count = 11;
class Node {
  #parent = null;
  #children = [];
  constructor({ name, tags: [first] = ['none'] } = { name: 'root' }, ...rest) {
    this.name = name;
    this.first = first;
    this.rest = rest.length;
  }
  adopt(child) {
    child.#parent = this;
    this.#children.push(child);
    return this;
  }
  get path() {
    return (this.#parent === null ? '' : this.#parent.path) + '/' + this.name;
  }
  get leaf() {
    return this.#children[0] ?? this;
  }
}
const tree = new Node().adopt(new Node({ name: 'leaf', tags: ['x'] }, 1, 2));
class Stack extends Array {
  top() {
    return this[this.length - 1];
  }
}
class Registry extends Map {
  #hits = 3;
  hit(key) {
    this.#hits++;
    return [this.get(key), this.#hits];
  }
}
const registry = new Registry([['k', 1]]);
class CodedError extends Error {
  constructor(message, code) {
    super(message);
    this.code = code;
  }
}
class Bus extends EventEmitter {
  hello() {
    return this.emit('x', 1) ? 'heard' : 'no one';
  }
}
const bus = new Bus();
class Iterable {
  *[Symbol.iterator]() {
    yield* [1, 2, 3];
  }
}
const keyOf = (x) => `key_${x}`;
class Computed {
  [keyOf('a')]() {
    return 'computed';
  }
  static [keyOf('b')] = 'static computed';
}
class Base {
  static create() {
    return new Derived();
  }
}
class Derived extends Base {
  name = 'derived';
}
class Money {
  static ZERO = new Money(0);
  constructor(cents) {
    this.cents = cents;
  }
  [Symbol.for('heliostat.serialize')]() {
    return { cents: this.cents };
  }
  static [Symbol.for('heliostat.deserialize')](data) {
    return new Money(data.cents);
  }
}
const price = new Money(250);
const Anonymous = class {
  static #next = 3;
  static next() {
    return ++Anonymous.#next;
  }
};
const dog = new Dog('rex');
const local = Symbol('local');
const bag = {
  [local]: 9,
  get g() {
    return this[local] + 1;
  },
  set g(v) {
    this[local] = v;
  },
};
const frozen = Object.freeze({ z: 1 });
const methods = {
  k: 2,
  multiply(x) {
    return x * this.k;
  },
  async later(x) {
    return x + this.k;
  },
  get twice() {
    return this.k * 2;
  },
  ['comp' + 'uted'](x) {
    return x;
  },
};
const inherits = {
  __proto__: {
    hi() {
      return 'base';
    },
  },
  hi() {
    return `${super.hi()}+own`;
  },
};
function Old(x) {
  this.x = x;
}
Old.prototype.double = function () {
  return this.x * 2;
};
const old = new Old(21);
function counted() {
  return counted.calls + 1;
}
counted.calls = 5;
const decorate =
  (f) =>
  (...a) =>
    f(...a) + 1;
const add = (a, b) => a + b;
const add5 = add.bind(null, 5);
const shared = [1];
const push = () => shared.push(2);
const size = () => shared.length;
const three = makeCounter(3);
const both = [makeCounter(0), makeCounter(0)];
const map = new Map([
  ['k', new Set([1, 2])],
  [table, 'object'],
]);
const day = new Date(86400000);
const pattern = /a(b+)/gi;
const big = 2n ** 70n;
const floats = Float32Array.of(1, 2, 3);
const large = Float64Array.from({ length: 4096 }, (_, i) => i);
const bytes = Buffer.from('hey');
const failure = new CodedError('bad', 'E7');
const minusZero = -0;
const hasOwn = Object.prototype.hasOwnProperty;
const read = fs.readFileSync;
const sleep = promisify(setTimeout);
const point = new Point(3, 4);
const sealed = new Sealed();
const proto = Object.create(
  {
    hello() {
      return `hi ${this.n}`;
    },
  },
  { n: { value: 3 } },
);
const made = new Function('a', 'return a * 2');
const log = console.log;
const outer = {
  v: 1,
  lexical() {
    return () => this.v;
  },
  explicit() {
    const self = this;
    return () => self.v;
  },
};
const usesArguments = (function () {
  return () => arguments[1];
})(4, 6);
const closed = (() => {
  const hidden = 's3';
  return { reveal: () => hidden };
})();
let swapA = 1;
let swapB = 2;
const swap = () => {
  [swapA, swapB] = [swapB, swapA];
  return [swapA, swapB];
};
const ordered = () => {
  const text = [];
  counter;
  helperCall(text);
  return text.length;
};
let helperCall = (list) => list.push(1);
helperCall = (list) => list.push(1, 2);
const nothing = undefined;
const maybe = table.missing;

const socket = new net.Socket();
const weak = new WeakMap();
const promise = Promise.resolve(1);
const proxy = new Proxy({}, {});
const storage = new AsyncLocalStorage();
const stream = createReadStream(process.argv[1]);
stream.destroy();
const running = (function* () {
  yield 1;
})();
const timer = setTimeout(() => {}, 1);
const controller = new AbortController();
const config = { db: { pool: { socket } } };
class Shadow {
  #v = 1;
  get v() {
    return this.#v;
  }
}
class ShadowToo extends Shadow {
  #v = 2;
  get w() {
    return this.#v;
  }
}
const shadow = new ShadowToo();
globalThis.userGlobal = { q: 1 };

// biome-ignore lint/suspicious/noFunctionAssign: what Babel makes of asynchronous functions does so
function replaced(x) {
  replaced = (y) => y * 10;
  return replaced(x);
}

export const shapes = [
  { name: 'arrow with a captured const', run: (x) => x * K, args: [4] },
  {
    name: 'function with its own name',
    run: function named(x) {
      return named.length + x + K;
    },
    args: [4],
  },
  { name: 'function that replaces itself', run: (x) => [replaced(x), replaced(x)], args: [2] },
  { name: 'async function', run: async (x) => (await null, x + K), args: [1] },
  {
    name: 'generator',
    run: function* (n) {
      for (let i = 0; i < n; i++) yield i * K;
    },
    args: [3],
    drain: true,
  },
  {
    name: 'async generator',
    run: async function* (n) {
      for (let i = 0; i < n; i++) yield i * K;
    },
    args: [3],
    drain: true,
  },
  {
    name: 'defaults, rest and patterns',
    run: ({ a = K, ...r }, [b = a] = [], ...c) => [a, Object.keys(r), b, c],
    args: [{ z: 1 }, [], 5],
  },
  { name: 'let of a module, as it is now', run: () => counter + 1 },
  { name: 'nested data', run: () => table.nested.b[2].c + table.a },
  { name: 'self recursion', run: (n) => factorial(n), args: [6] },
  { name: 'mutual recursion', run: (n) => isEven(n), args: [9] },
  { name: 'cyclic object', run: () => cyclic.self.self.n },
  { name: 'variable shared by two closures', run: () => (three.increment(), three.increment(), three.read()) },
  { name: 'closures taken out of their object', run: () => (inc(), peek()) },
  { name: 'two objects of one factory', run: () => (both[0].increment(), [both[0].read(), both[1].read()]) },
  { name: 'bare closures with different state', run: () => [bareA(), bareC()] },
  { name: 'object shared by two closures', run: () => (push(), [size(), shared.length]) },
  { name: 'private state of a closure', run: () => closed.reveal() },
  { name: 'decorated function', run: decorate((x) => x * K), args: [2] },
  { name: 'bound function', run: add5, args: [3] },
  { name: 'bound method', run: methods.multiply.bind(methods), args: [4] },
  { name: 'own properties of a function', run: counted },
  { name: 'method that uses this', run: () => methods.multiply(4) },
  {
    name: 'async method, getter, computed key',
    run: async () => [await methods.later(1), methods.twice, methods.computed(3)],
  },
  { name: 'method that uses super', run: () => inherits.hi() },
  { name: 'class', run: (n) => new Dog(n).loud, args: ['fido'] },
  { name: 'instance and its chain', run: () => [dog.say(), dog instanceof Animal, dog.constructor.name] },
  { name: 'statics', run: () => [Private.count, Dog.make('a').say(), Vector.zero.x, Vector.of(3, 4).length] },
  {
    name: 'private names',
    run: () => {
      secret.value = 9;
      return [
        secret.value,
        secret.double(),
        new Private(1).value,
        Private.made() > 0,
        Private.has(secret),
        Private.has({}),
      ];
    },
  },
  {
    name: 'private fields that form a cycle',
    run: () => [tree.leaf.path, tree.leaf.first, tree.leaf.rest, new Node().path],
  },
  { name: 'private names on a builtin', run: () => [registry.hit('k'), registry instanceof Map, registry.size] },
  {
    name: 'classes that extend builtins',
    run: () => [
      Stack.from([1, 2]).top(),
      failure instanceof CodedError,
      failure instanceof Error,
      failure.code,
      failure.message,
    ],
  },
  {
    name: 'class that extends a class of Node',
    run: () => {
      const b = new Bus();
      b.on('x', () => {});
      return b.hello();
    },
  },
  { name: 'instance of a class that extends EventEmitter', run: () => [bus.hello(), bus.listenerCount('x')] },
  { name: 'iterator method', run: () => [...new Iterable()] },
  { name: 'computed members', run: () => [new Computed().key_a(), Computed.key_b] },
  { name: 'classes that know each other', run: () => [Base.create().name, Derived.create() instanceof Base] },
  { name: 'anonymous class with a static private', run: () => [Anonymous.next(), Anonymous.next(), Anonymous.name] },
  { name: 'class with serialize and deserialize', run: () => [price.cents, price instanceof Money, Money.ZERO.cents] },
  { name: 'ES5 constructor', run: () => [old.double(), new Old(2).double(), old instanceof Old] },
  { name: 'accessors, symbols, frozen', run: () => [bag.g, bag[local], ((bag.g = 4), bag.g), Object.isFrozen(frozen)] },
  {
    name: 'builtin kinds',
    run: () => [
      map.get('k').has(2),
      map.get(table),
      +day,
      'xABB'.replace(pattern, '<$1>'),
      String(big),
      floats[2],
      bytes.toString(),
      Object.is(minusZero, -0),
    ],
  },
  { name: 'large typed array', run: () => large.reduce((a, b) => a + b, 0) },
  { name: 'prototype of its own', run: () => [proto.hello(), Object.keys(proto)] },
  { name: 'undefined variables', run: () => [nothing, maybe] },
  { name: 'destructuring assignment', run: () => swap() },
  { name: 'text without semicolons', run: () => ordered() },
  {
    name: 'builtins by import',
    run: () => [typeof readFileSync, path.join('a', 'b'), os.EOL, typeof fs.promises.readFile],
  },
  { name: 'builtins by value', run: () => [typeof read, hasOwn.call({ a: 1 }, 'a'), typeof log] },
  { name: 'promisified timer', run: async () => (await sleep(1), 'slept') },
  { name: 'package: ES module', run: () => [twice(4), label(1), limits.high, esm.twice(2)] },
  { name: 'package: CommonJS', run: () => [collect(1, 2), collect.sum([1, 2]), collect.version] },
  { name: 'package: dual', run: () => [kind, describe(1)] },
  { name: 'instance of a class of a package', run: () => [point.length, point instanceof Point] },
  {
    name: 'relative imports',
    run: (x) => [triple(x), FACTOR, new Vector(3, 4).add(new Vector(0, 0)).length, half(x)],
    args: [4],
  },
  { name: 'relative namespace', run: (x) => util.triple(x) + util.FACTOR, args: [2] },
  { name: 'module state', run: () => (bump(), bump(), [countCalls() > 1, seen.size]) },
  { name: 'CommonJS: requires', run: (n) => lib.viaRequire(n), args: [2] },
  { name: 'CommonJS: require while it runs', run: (n) => lib.lazily(n), args: ['q'] },
  { name: 'CommonJS: __filename', run: () => lib.whereIsIt().slice(0, 2) },
  { name: 'CommonJS: sloppy this', run: () => lib.sloppyThis() },
  { name: 'CommonJS: module state', run: () => [lib.visit(), lib.visit(), lib.visited()], local: [1, 2, 2] },
  { name: 'dynamic import of a package', run: async () => (await import('plain-esm')).twice(2) },
  { name: 'dynamic import of a builtin', run: async () => typeof (await import('node:fs')).readFileSync },
  { name: 'import.meta', run: () => typeof import.meta.url },
  { name: 'arguments of the function around it', run: usesArguments },
  { name: 'self instead of this', run: outer.explicit() },
  { name: 'global of the program', run: () => userGlobal.q },
  { name: 'undeclared name', run: () => typeof notThere },
  { name: 'new Function', run: () => made(4) },
  {
    name: 'labels, classes and generators inside',
    run: () => {
      const seenHere = [];
      rows: for (const i of [1, 2, 3]) {
        for (const j of [1, 2]) {
          if (i * j === 4) break rows;
          seenHere.push(i * j);
        }
      }
      class N {
        *g() {
          yield K;
        }
      }
      let z = null;
      z ??= [...new N().g()][0];
      return [seenHere, z, ((s, v) => s.raw[0] + v)`a${z}`, null?.x];
    },
  },
  {
    name: 'error of a class by value',
    run: () => {
      throw new CodedError('boom', 1);
    },
    throws: /boom/,
  },

  { name: 'lexical this', run: outer.lexical(), refused: /this/ },
  {
    name: 'socket, deep inside',
    run: () => config.db.pool.socket,
    refused: /task → config\.db\.pool\.socket: is a Socket/,
  },
  { name: 'stream', run: () => stream.path, refused: /→ stream/ },
  { name: 'WeakMap', run: () => weak.has({}), refused: /weak/ },
  { name: 'Promise', run: async () => promise, refused: /Promise/ },
  { name: 'Proxy', run: () => proxy.a, refused: /Proxy/ },
  { name: 'AsyncLocalStorage', run: () => storage.getStore(), refused: /storage/ },
  { name: 'running generator', run: () => running.next(), refused: /generator/ },
  { name: 'timer', run: () => timer.ref(), refused: /timer/ },
  { name: 'AbortController', run: () => controller.signal, refused: /controller/ },
  // biome-ignore lint/security/noGlobalEval: it is what is refused
  { name: 'direct eval', run: () => eval('K'), refused: /eval/ },
  { name: 'relative dynamic import', run: () => import('./util.mjs'), refused: /relative/ },
  {
    name: 'method with a private name, alone',
    run: Object.getOwnPropertyDescriptor(Private.prototype, 'double').value,
    refused: /private/,
  },
  { name: 'equal bare closures', run: () => [bareA(), bareB()], refused: /share/ },
  { name: 'private fields of one name in a chain', run: () => [shadow.v, shadow.w], refused: /two private fields #v/ },
  { name: 'private fields of a class of a package', run: () => sealed.reveal(), refused: /registerSerializer/ },
  { name: 'const that is not initialised', run: () => later, refused: /→ later: is not initialised/ },
  { name: 'class that is not initialised', run: () => new Later(), refused: /→ Later: is not initialised/ },
];
// The table is checked while this module still runs: what is declared below has no value yet.
export const outcomes = globalThis.checkShapes?.(shapes);
const later = 5;
class Later {}
