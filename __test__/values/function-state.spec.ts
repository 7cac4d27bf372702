import test from 'ava';
import { encode, setHooks } from '../../dist/values/index.cjs';
import { Peer, pack, roundTrip } from './support/peer.js';
import { calls, count, countSoFar, remember, table } from './support/stateful.js';

class Dog {
  name: string;
  constructor(name: string) {
    this.name = name;
  }
  bark(): string {
    return `${this.name}!`;
  }
}

let level = 1;
const setLevel = (to: number) => {
  level = to;
};
const readLevel = () => level;

test('state of a module lasts in a process and is shared by the functions that use it', async (t) => {
  await using peer = new Peer();
  t.is(await peer.call(() => count()), 1);
  t.is(await peer.call(() => count()), 2);
  t.is(await peer.call(() => countSoFar()), 2);
  await peer.call(() => remember('a', 1));
  t.is(await peer.call(() => table.get('a')), 1);
  t.is(await peer.call(() => calls), 2);
  t.is(count(), 1, 'here nothing has happened');
});

test('a variable that has changed here arrives as it is now', async (t) => {
  await using peer = new Peer();
  t.is(await peer.call(readLevel), 1);
  setLevel(5);
  t.is(await peer.call(readLevel), 5);
  const changed = () => {
    setLevel(9);
    return readLevel();
  };
  t.is(await peer.call(changed), 9);
  t.is(level, 5, 'changes there do not come back');
});

test('a class is one class in a process, and comes home as itself', async (t) => {
  await using peer = new Peer();
  const rex = await peer.call(() => new Dog('rex'));
  t.true(rex instanceof Dog);
  t.is(rex.bark(), 'rex!');
  t.true(await peer.call((dog: unknown) => dog instanceof Dog, rex));
  t.is(roundTrip(Dog), Dog);
});

test('functions that were sent can be sent on and back', async (t) => {
  await using first = new Peer();
  await using second = new Peer();
  const factor = 3;
  let made = 0;
  const make = (by: number) => {
    made++;
    return (x: number) => x * by * factor + made;
  };
  const inner = await first.call((by: number) => make(by), 2);
  t.is(inner(5), 31);
  t.is(await second.call((f: (x: number) => number) => f(5), inner), 31);
});

test('instances with private fields travel between processes that revived their class', async (t) => {
  await using peer = new Peer();
  class Counter {
    #n = 0;
    next(): number {
      return ++this.#n;
    }
  }
  const counter = new Counter();
  counter.next();
  t.is(await peer.call((c: Counter) => c.next(), counter), 2);
  t.is(await peer.call((c: Counter) => Number(c instanceof Counter), counter), 1);
  // The class as it is declared here cannot be told to make an instance without running its constructor.
  await t.throwsAsync(
    peer.call(() => new Counter()),
    { message: /comes back/ },
  );
});

test('classes made inside a function that was sent can be sent back', async (t) => {
  await using peer = new Peer();
  const base = 10;
  const made = await peer.call(() => {
    class Local {
      #v = base;
      plus(n: number): number {
        return this.#v + n;
      }
    }
    return { instance: new Local(), Local };
  });
  t.is(made.instance.plus(1), 11);
  t.true(made.instance instanceof made.Local);
});

test('large captured arrays travel out of band, captured references by index', (t) => {
  const large = new Float64Array(2000);
  const { buffers, functions } = encode(() => large.length);
  t.is(buffers[0]?.byteLength, 16_000);
  t.true(functions);
  t.false(encode({ large }).functions);
});

test('data and functions share one identity', async (t) => {
  await using peer = new Peer();
  const shared = { n: 1 };
  const read = () => shared;
  t.true(await peer.call((f: () => object, data: object) => f() === data, read, shared));
});

test('function objects keep name, length and identity', (t) => {
  const named = (a: number, b: number) => a + b;
  const back = roundTrip({ named, again: named });
  t.is(back.named, back.again);
  t.is(back.named.name, 'named');
  t.is(back.named.length, 2);
  t.is(back.named(1, 2), 3);
});

test('stack traces show the line of the source', async (t) => {
  await using peer = new Peer();
  const here = new Error().stack?.split('\n')[1] ?? '';
  const thrown = await peer.call(() => new Error('there'));
  const file = /function-state\.spec\.ts/;
  t.regex(here, file);
  t.regex(thrown.stack?.split('\n')[1] ?? '', file);
});

class Handle {
  constructor(readonly id: number) {}
}
class OwnError extends Error {
  readonly code = 'OWN';
}
const self = { Handle: class {}, OwnError, answer: () => 42, value: { fixed: true } };
const wrapped = Object.defineProperties(
  {} as typeof self,
  Object.fromEntries(
    Object.keys(self).map((name) => [name, { enumerable: true, get: () => self[name as keyof typeof self] }]),
  ),
);

test.serial.before(() => {
  setHooks({
    isRef: (value) => value instanceof Handle,
    isDraft: () => undefined,
    serializationError: (path, reason, hint) =>
      Object.assign(new Error(`${path}: ${reason}. ${hint}`), { code: 'SERIALIZATION', path }),
    packageName: 'heliostat',
    resolveSelf: () => self,
    errorClasses: () => ({ OwnError }),
  });
});

test('exports of the package are found by name', async (t) => {
  await using peer = new Peer();
  const { answer } = self;
  t.is(await peer.call(() => answer() + self.answer()), 84);
  t.is(await peer.call(() => wrapped.answer()), 42);
  const name = 'heliostat';
  t.is(await peer.call(async () => ((await import(name)) as typeof self).answer()), 42);
  t.false(Buffer.from(pack(() => answer()).header).includes('=> 42'));
  t.false(Buffer.from(pack(() => wrapped.answer()).header).includes('=> 42'));
});

test('references are captured by index and come back', async (t) => {
  await using peer = new Peer();
  const ref = new Handle(7);
  const other = new Handle(8);
  const [first, second] = await peer.call((a: object) => [a, a] as const, other);
  t.is(first, other);
  t.is(second, other);
  t.deepEqual(encode(() => [ref, other]).refs, [ref, other]);
});

test("the package's own errors keep class and fields", (t) => {
  const back = roundTrip(Object.assign(new OwnError('x', { cause: 1 }), { path: '$.a' }));
  t.true(back instanceof OwnError);
  t.like(back, { message: 'x', code: 'OWN', path: '$.a', cause: 1 });
});

test('functions inside the package do not travel', (t) => {
  t.throws(() => encode(encode), { message: /inside heliostat/ });
});
