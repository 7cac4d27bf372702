import test from 'ava';
import { deregisterSerializer, encode, registerSerializer } from '../../dist/values/index.cjs';
import { Peer, roundTrip } from './support/peer.js';

class Celsius {
  readonly #degrees: number;
  constructor(degrees: number) {
    this.#degrees = degrees;
  }
  get degrees(): number {
    return this.#degrees;
  }
}

class Matrix {
  constructor(
    readonly rows: number,
    readonly data: Float64Array,
  ) {}
  [Symbol.for('heliostat.serialize')](): unknown {
    return [this.rows, this.data];
  }
  static [Symbol.for('heliostat.deserialize')]([rows, data]: [number, Float64Array]): Matrix {
    return new Matrix(rows, data);
  }
  sum(): number {
    return this.data.reduce((a, b) => a + b, 0);
  }
}

test.serial('a registered class travels by its parts', (t) => {
  registerSerializer(Celsius, { serialize: (c) => c.degrees, deserialize: (degrees: number) => new Celsius(degrees) });
  try {
    const one = new Celsius(21);
    const back = roundTrip({ one, again: one });
    t.true(back.one instanceof Celsius);
    t.is(back.one.degrees, 21);
    t.is(back.one, back.again);
  } finally {
    deregisterSerializer(Celsius);
  }
});

test.serial('the hook travels with the values, there and back', async (t) => {
  registerSerializer(Celsius, { serialize: (c) => c.degrees, deserialize: (degrees: number) => new Celsius(degrees) });
  await using peer = new Peer();
  try {
    const warmer = await peer.call(
      (c: Celsius) => new (c.constructor as typeof Celsius)(c.degrees + 1),
      new Celsius(20),
    );
    t.true(warmer instanceof Celsius);
    t.is(warmer.degrees, 21);
  } finally {
    deregisterSerializer(Celsius);
  }
});

test('a class with the two symbols travels by what it returns, large data out of band', async (t) => {
  await using peer = new Peer();
  const matrix = new Matrix(
    2,
    Float64Array.from({ length: 400 }, () => 0.5),
  );
  t.is(encode(matrix).buffers.length, 1);
  const back = await peer.call((m: Matrix) => [m.sum(), m], matrix);
  t.is(back[0], 200);
  t.true(back[1] instanceof Matrix);
});

test('a serializer may encode other values while it is called', (t) => {
  const again = Symbol.for('values test: encode again');
  Object.assign(globalThis, { [again]: () => Uint8Array.from(encode({ nested: [1, 2, 3] }).header) });
  class Outer {
    [Symbol.for('heliostat.serialize')](): unknown {
      return (globalThis as unknown as Record<symbol, () => unknown>)[Symbol.for('values test: encode again')]?.();
    }
    static [Symbol.for('heliostat.deserialize')](bytes: Uint8Array): unknown {
      return bytes.length;
    }
  }
  const value = { before: { a: 1 }, outer: new Outer(), after: { a: 1 } };
  const { before, outer, after } = roundTrip(value) as Record<string, unknown>;
  t.deepEqual([before, typeof outer, after], [{ a: 1 }, 'number', { a: 1 }]);
});

test('failures of serializers name the place', (t) => {
  class Broken {
    [Symbol.for('heliostat.serialize')](): unknown {
      throw new Error('no');
    }
    static [Symbol.for('heliostat.deserialize')](): void {}
  }
  class Half {
    [Symbol.for('heliostat.serialize')](): unknown {
      return 1;
    }
  }
  class Knot {
    [Symbol.for('heliostat.serialize')](): unknown {
      return [this];
    }
    static [Symbol.for('heliostat.deserialize')](): void {}
  }
  t.throws(() => encode([new Broken()]), { message: /\$\[0\].*serializer threw: no/ });
  t.throws(() => encode([new Half()]), { message: /deserialize/ });
  t.throws(() => encode([new Knot()]), { message: /cycle/ });
});

test('wrong arguments are refused at once', (t) => {
  t.throws(() => registerSerializer(3 as never, {} as never), { instanceOf: TypeError });
  t.throws(() => registerSerializer(Celsius, {} as never), { instanceOf: TypeError });
});
