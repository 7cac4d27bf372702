/**
 * Random graphs of values: nodes of every kind that refer to each other by number, so that identity and cycles occur as
 * often as trees. A graph is data (specs), so that a failing one shrinks and prints; {@link build} makes the values.
 */
import fc from 'fast-check';

/** Any UTF-16, lone surrogates included; and the names that objects trip over. */
const text = fc.oneof(
  { weight: 3, arbitrary: fc.string({ maxLength: 8 }) },
  {
    weight: 2,
    arbitrary: fc
      .array(fc.oneof(fc.integer({ min: 0xd7f0, max: 0xe010 }), fc.integer({ min: 0, max: 0xffff })), { maxLength: 6 })
      .map((units) => String.fromCharCode(...units)),
  },
  { weight: 1, arbitrary: fc.integer({ min: 60, max: 300 }).map((n) => 'é'.repeat(n)) },
);
const SYMBOLS = [Symbol.iterator, Symbol.for('shared'), Symbol('own'), Symbol('own'), Symbol.toStringTag, Symbol()];
const key = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom<string | symbol>('a', 'b', 'c', 'd') },
  {
    weight: 2,
    arbitrary: fc.constantFrom(
      '__proto__',
      'constructor',
      'toString',
      'then',
      'length',
      '',
      '0',
      '7',
      '-1',
      '4294967295',
      'toJSON',
      'hasOwnProperty',
      'source',
      'flags',
      'size',
      'message',
      'name',
      'valueOf',
      'byteLength',
      'lastIndex',
      'get',
      'set',
      'buffer',
      'byteOffset',
      'maxByteLength',
      'href',
    ),
  },
  { weight: 1, arbitrary: text },
  { weight: 1, arbitrary: fc.constantFrom(...SYMBOLS) },
);

const primitive: fc.Arbitrary<unknown> = fc.oneof(
  fc.constantFrom(
    undefined,
    null,
    true,
    false,
    0,
    -0,
    Number.NaN,
    Number.POSITIVE_INFINITY,
    Number.NEGATIVE_INFINITY,
    127,
    128,
    -1,
  ),
  fc.integer(),
  fc.double(),
  fc.constantFrom(2 ** 31, -(2 ** 31), 2 ** 31 - 1, 2 ** 32, 2 ** 53, Number.MIN_VALUE, Number.MAX_VALUE),
  fc.bigInt(),
  fc.bigInt({ min: -(2n ** 200n), max: 2n ** 200n }),
  text,
  fc.constantFrom(...SYMBOLS),
);

/** A primitive, or the number of a node. */
export type Held = { value: unknown } | { node: number };
const held: fc.Arbitrary<Held> = fc.oneof(
  { weight: 3, arbitrary: primitive.map((value) => ({ value })) },
  { weight: 4, arbitrary: fc.nat({ max: 11 }).map((node) => ({ node })) },
);

const VIEWS = [
  'Int8Array',
  'Uint8Array',
  'Uint8ClampedArray',
  'Int16Array',
  'Uint16Array',
  'Int32Array',
  'Uint32Array',
  'Float32Array',
  'Float64Array',
  'BigInt64Array',
  'BigUint64Array',
  'DataView',
  'Buffer',
] as const;
const ERRORS = ['Error', 'EvalError', 'RangeError', 'ReferenceError', 'SyntaxError', 'TypeError', 'URIError'] as const;

/** Declared here, sent as instances: by their class, which comes home as itself. */
class Point {
  x = 1;
}
class Registry extends Map<unknown, unknown> {
  name = 'registry';
}
class List extends Array<unknown> {}
class Failure extends TypeError {}
const pool = fc.record({
  size: fc.constantFrom(0, 8, 24, 64, 1016, 1024, 2048),
  seed: fc.nat({ max: 255 }),
  shared: fc.boolean(),
});

const base = fc.oneof(
  { weight: 8, arbitrary: fc.record({ kind: fc.constantFrom('object' as const, 'bare' as const) }) },
  { weight: 5, arbitrary: fc.record({ kind: fc.constant('array' as const), items: fc.array(held, { maxLength: 6 }) }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('array' as const),
      items: fc.array(
        primitive.map((value) => ({ value })),
        { minLength: 30, maxLength: 40 },
      ),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant('numbers' as const), items: fc.array(fc.double(), { maxLength: 40 }) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('sparse' as const),
      length: fc.constantFrom(0, 1, 5, 50, 2 ** 32 - 1),
      items: fc.array(fc.tuple(fc.nat({ max: 60 }), held), { maxLength: 4 }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constantFrom('map' as const, 'set' as const),
      items: fc.array(fc.tuple(held, held), { maxLength: 4 }),
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant('view' as const),
      type: fc.constantFrom(...VIEWS),
      pool: fc.nat({ max: 3 }),
      offset: fc.nat({ max: 2048 }),
      length: fc.nat({ max: 2048 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('buffer' as const), pool: fc.nat({ max: 3 }) }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('date' as const),
      time: fc.oneof(fc.constant(Number.NaN), fc.integer(), fc.integer({ min: -8.64e15, max: 8.64e15 })),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('regexp' as const),
      source: fc.constantFrom('', 'a/b', '[/\\n]', '(?<x>é)'),
      flags: fc.constantFrom('', 'g', 'iy', 'gimsuy'),
      last: fc.nat({ max: 9 }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('error' as const),
      type: fc.constantFrom(...ERRORS),
      message: text,
      cause: fc.option(held),
      stack: fc.boolean(),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('boxed' as const),
      value: fc.oneof(fc.double(), text, fc.boolean(), fc.bigInt(), fc.constantFrom(...SYMBOLS)),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('url' as const),
      query: fc.boolean(),
      path: fc.constantFrom('', '/', '/a/b', '/%20?x=1', '/é'),
    }),
  },
);
/** Rarer: code travels along, which takes far longer. */
const instance = fc.record({
  kind: fc.constantFrom('point' as const, 'registry' as const, 'list' as const, 'failure' as const),
});
/** Cannot be sent. */
const local = fc.record({
  kind: fc.constantFrom(
    'promise' as const,
    'weakmap' as const,
    'weakref' as const,
    'generator' as const,
    'proxy' as const,
    'arguments' as const,
    'detached' as const,
    'iterator' as const,
  ),
});

function node(of: fc.Arbitrary<{ kind: string }>) {
  return fc.record({
    of,
    properties: fc.array(fc.record({ key, held, hidden: fc.boolean(), fixed: fc.boolean() }), { maxLength: 4 }),
    plain: fc.boolean(),
    state: fc.oneof(
      { weight: 12, arbitrary: fc.constant('open' as const) },
      { weight: 1, arbitrary: fc.constantFrom('closed' as const, 'sealed' as const, 'frozen' as const) },
    ),
  });
}

/** How often a graph holds what is not data. */
function graphs(nodes: fc.Arbitrary<{ kind: string }>) {
  return fc.record({
    nodes: fc.array(node(nodes), { minLength: 1, maxLength: 12 }),
    pools: fc.array(pool, { minLength: 1, maxLength: 4 }),
  });
}

/** Graphs of plain data. */
export const dataGraphs = graphs(base as fc.Arbitrary<{ kind: string }>);
/** Graphs in which instances of classes and what cannot be sent occur. */
export const mixedGraphs = graphs(
  fc.oneof(
    { weight: 20, arbitrary: base as fc.Arbitrary<{ kind: string }> },
    { weight: 1, arbitrary: instance },
    { weight: 1, arbitrary: local },
  ),
);

export type Graph = typeof dataGraphs extends fc.Arbitrary<infer G> ? G : never;

const LOCAL = new Set(['promise', 'weakmap', 'weakref', 'generator', 'proxy', 'arguments', 'detached', 'iterator']);

interface Built {
  root: unknown;
  /** Objects that cannot be sent, whether they are reachable or not. */
  locals: Set<object>;
}

/** Makes the values; the first node is the root. */
export function build(graph: Graph): Built {
  const pools = graph.pools.map(({ size, seed, shared }) => {
    const buffer = shared ? new SharedArrayBuffer(size) : new ArrayBuffer(size);
    const bytes = new Uint8Array(buffer);
    for (let i = 0; i < size; i++) bytes[i] = (i * 31 + seed) & 0xff;
    return buffer;
  });
  const specs = graph.nodes as { of: any; properties: any[]; plain: boolean; state: string }[];
  const made = specs.map(({ of }) => make(of, pools));
  const resolve = (held: Held) => ('value' in held ? held.value : made[held.node % made.length]);
  const locals = new Set<object>();
  specs.forEach(({ of, properties, plain }, i) => {
    const object = made[i] as object;
    if (LOCAL.has(of.kind)) {
      locals.add(object);
      return;
    }
    fill(of, object, resolve);
    for (const { key, held, hidden, fixed } of properties) {
      if (isFixed(object, key)) continue;
      const value = resolve(held);
      const unusual = !plain && (hidden || fixed);
      Object.defineProperty(object, key, {
        value,
        enumerable: !unusual || !hidden,
        configurable: !unusual || !fixed,
        writable: !unusual || !fixed,
      });
    }
  });
  specs.forEach(({ properties, plain }, i) => {
    const isFixed = !plain && properties.some(({ key, fixed }) => fixed && key === 'length');
    if (isFixed && Array.isArray(made[i])) Object.defineProperty(made[i], 'length', { writable: false });
  });
  specs.forEach(({ of, state }, i) => {
    const object = made[i] as object;
    if (LOCAL.has(of.kind)) return;
    // Elements of a view cannot be fixed, nor can they be where nothing may be added.
    if (ArrayBuffer.isView(object) && state !== 'open') return;
    if (state === 'closed') Object.preventExtensions(object);
    else if (state === 'sealed') Object.seal(object);
    else if (state === 'frozen') Object.freeze(object);
  });
  return { root: made[0], locals };
}

/** Elements of views and characters of strings are not redefined; what exists and is fixed cannot be. */
function isFixed(object: object, key: string | symbol): boolean {
  // To a view every text of a number is an index, if one that it does not have.
  const isNumber = typeof key === 'string' && (String(Number(key)) === key || key === '-0');
  if (isNumber && (object instanceof String || ArrayBuffer.isView(object))) return true;
  // The runtime makes the stack's text from these when it is first asked for it.
  if (object instanceof Error && (key === 'stack' || key === 'name' || key === 'message')) return true;
  const existing = Object.getOwnPropertyDescriptor(object, key);
  return existing !== undefined && (existing.configurable === false || object instanceof Error);
}

function make(of: any, pools: (ArrayBuffer | SharedArrayBuffer)[]): unknown {
  switch (of.kind) {
    case 'object':
      return {};
    case 'bare':
      return Object.create(null);
    case 'array':
    case 'sparse':
      return [];
    case 'numbers':
      return [...of.items];
    case 'map':
      return new Map();
    case 'set':
      return new Set();
    case 'buffer':
      return pools[of.pool % pools.length];
    case 'view':
      return makeView(of, pools[of.pool % pools.length] as ArrayBuffer);
    case 'date':
      return new Date(of.time);
    case 'regexp': {
      const made = new RegExp(of.source, of.flags);
      made.lastIndex = of.last;
      return made;
    }
    case 'error':
      return new globalThis[of.type as 'Error'](of.message);
    case 'boxed':
      return Object(of.value);
    case 'url':
      return of.query ? new URLSearchParams({ q: of.path }) : new URL(`https://example.org${of.path}`);
    case 'point':
      return new Point();
    case 'registry':
      return new Registry();
    case 'list':
      return new List();
    case 'failure':
      return new Failure('failed');
    case 'promise':
      return Promise.resolve(1);
    case 'weakmap':
      return new WeakMap();
    case 'weakref':
      return new WeakRef({});
    case 'generator':
      return (function* () {
        yield 1;
      })();
    case 'proxy':
      return new Proxy({}, {});
    case 'arguments':
      return argumentsOf(1, 2);
    case 'detached': {
      const buffer = new ArrayBuffer(8);
      structuredClone(buffer, { transfer: [buffer] });
      return buffer;
    }
    case 'iterator':
      return [1][Symbol.iterator]();
    default:
      throw new Error(of.kind);
  }
}

function argumentsOf(..._: number[]): IArguments {
  // biome-ignore lint/complexity/noArguments: the object itself is what is tested
  return arguments;
}

function makeView(of: any, buffer: ArrayBuffer): ArrayBufferView {
  const size = of.type === 'DataView' || of.type === 'Buffer' ? 1 : (globalThis as any)[of.type].BYTES_PER_ELEMENT;
  const offset = Math.min(of.offset - (of.offset % size), buffer.byteLength - (buffer.byteLength % size));
  const length = Math.min(of.length, Math.floor((buffer.byteLength - offset) / size));
  if (of.type === 'Buffer') return Buffer.from(buffer, offset, length);
  return new (globalThis as any)[of.type](buffer, offset, length);
}

function fill(of: any, object: any, resolve: (held: Held) => unknown): void {
  if (of.kind === 'array') for (const item of of.items) object.push(resolve(item));
  else if (of.kind === 'sparse') {
    object.length = of.length;
    for (const [index, item] of of.items) object[index] = resolve(item);
  } else if (of.kind === 'map') for (const [name, item] of of.items) object.set(resolve(name), resolve(item));
  else if (of.kind === 'set') for (const [item] of of.items) object.add(resolve(item));
  else if (of.kind === 'error') {
    if (of.cause !== null)
      Object.defineProperty(object, 'cause', { value: resolve(of.cause), writable: true, configurable: true });
    if (!of.stack) Reflect.deleteProperty(object, 'stack');
  }
}
