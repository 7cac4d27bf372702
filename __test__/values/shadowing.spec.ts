import test from 'ava';
import { roundTrip } from './support/peer.js';
import { difference } from './support/same.js';

/** Names that a class, the runtime or a codec could ask for: own properties of these names are the program's data. */
const NAMES = [
  'length',
  'buffer',
  'byteOffset',
  'byteLength',
  'maxByteLength',
  'resizable',
  'slice',
  'subarray',
  'parent',
  'offset',
  'BYTES_PER_ELEMENT',
  'constructor',
  '__proto__',
  'size',
  'get',
  'set',
  'has',
  'add',
  'entries',
  'values',
  'keys',
  'forEach',
  'name',
  'message',
  'stack',
  'cause',
  'errors',
  'code',
  'toString',
  'valueOf',
  'toJSON',
  'toISOString',
  'getTime',
  'then',
  'source',
  'flags',
  'global',
  'lastIndex',
  'exec',
  'href',
  'searchParams',
  'description',
  'inspect',
  'hasOwnProperty',
  Symbol.toStringTag,
  Symbol.iterator,
  Symbol.species,
  Symbol.toPrimitive,
  Symbol.isConcatSpreadable,
  Symbol.for('nodejs.util.inspect.custom'),
  Symbol.for('heliostat.serialize'),
  Symbol.for('apache-arrow/Vector'),
] as const;

type Resizable = new (length: number, options: { maxByteLength: number }) => ArrayBuffer;

const KINDS: Record<string, () => object> = {
  object: () => ({ a: 1 }),
  'object without a prototype': () => Object.create(null) as object,
  array: () => [1, 2],
  'long array': () => Array.from({ length: 100 }, (_, i) => i),
  Map: () => new Map([[1, 2]]),
  Set: () => new Set([1]),
  Date: () => new Date(5),
  RegExp: () => /a\/b/g,
  TypeError: () => new TypeError('message'),
  AggregateError: () => new AggregateError([1], 'message'),
  DOMException: () => new DOMException('message', 'AbortError'),
  ArrayBuffer: () => Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8).buffer,
  'large ArrayBuffer': () => new Uint8Array(4096).fill(3).buffer,
  SharedArrayBuffer: () => new SharedArrayBuffer(8),
  'large SharedArrayBuffer': () => new SharedArrayBuffer(4096),
  'resizable ArrayBuffer': () => new (ArrayBuffer as unknown as Resizable)(8, { maxByteLength: 16 }),
  Uint8Array: () => Uint8Array.of(1, 2, 3),
  'long Float64Array': () => new Float64Array(100).fill(2),
  'large Float64Array': () => new Float64Array(1000).fill(2),
  DataView: () => new DataView(new ArrayBuffer(9), 1, 5),
  Buffer: () => Buffer.from('hello'),
  'long Buffer': () => Buffer.alloc(300, 7),
  'large Buffer': () => Buffer.alloc(5000, 7),
  Number: () => Object(5) as object,
  String: () => Object('abc') as object,
  Boolean: () => Object(true) as object,
  BigInt: () => Object(5n) as object,
  Symbol: () => Object(Symbol.for('registered')) as object,
  URL: () => new URL('https://example.org/a?b'),
  URLSearchParams: () => new URLSearchParams('a=b'),
};

for (const [kind, make] of Object.entries(KINDS)) {
  test(`own properties of ${kind} hide nothing, whatever their names`, (t) => {
    const lost: string[] = [];
    for (const name of NAMES) {
      for (const held of [0, 1e6, 'text', null, { deep: true }]) {
        for (const enumerable of [true, false]) {
          const value = make();
          if (Object.getOwnPropertyDescriptor(value, name)?.configurable === false) continue;
          Object.defineProperty(value, name, { value: held, enumerable, configurable: true, writable: true });
          const what = `${kind}.${String(name)} = ${String(held)}`;
          // A second reference to it, with something behind: nothing was read too short or too far.
          const list = [value, value, 'behind'];
          const found = difference(list, roundTrip(list));
          if (found !== undefined) lost.push(`${what}: ${found}`);
        }
      }
    }
    t.deepEqual(lost, []);
  });
}
