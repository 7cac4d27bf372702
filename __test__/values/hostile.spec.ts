// biome-ignore-all lint/suspicious/noSparseArray: holes are what is tested
import test from 'ava';
import { decode, encode, prepare } from '../../dist/values/index.cjs';

const samples: Record<string, unknown> = {
  kinds: {
    numbers: [1, 2.5, -0, 10n, -5n, 2 ** 40],
    text: ['x', '日本', 'y'.repeat(50)],
    map: new Map([[{}, new Set([1])]]),
    date: new Date(1),
    pattern: /a/g,
    error: new AggregateError([new Error('x')], 'y'),
    memory: new ArrayBuffer(8),
    floats: new Float64Array(4),
    sparse: Object.freeze([1, , 3]),
    url: new URL('http://a/'),
    symbols: [Symbol.iterator, Symbol.for('k'), Symbol('own')],
    bare: Object.create(null) as object,
    special: JSON.parse('{"__proto__": 1}') as unknown,
  },
  shapes: Array.from({ length: 5 }, (_, i) => ({ i, n: `n${i}` })),
  shared: new SharedArrayBuffer(10),
};

/** Decodes bytes that nobody wrote: a value or the typed error. */
function attempt(header: Uint8Array, buffers: ArrayBuffer[]): 'value' | 'refused' {
  try {
    prepare(header)?.catch(() => {});
    decode({ header, buffers, refs: () => ({}) });
    return 'value';
  } catch (error) {
    if ((error as { code?: string }).code !== 'SERIALIZATION') throw error;
    return 'refused';
  }
}

test('long texts over buffers that are missing, cut or shared with views', (t) => {
  const { header: written, buffers } = encode(['日'.repeat(2 ** 18), 'x'.repeat(2 ** 18), new Uint16Array(2000)]);
  const header = Uint8Array.from(written);
  const copies = buffers.map((view) => Uint8Array.from(view as Uint8Array).buffer);
  t.is(attempt(header, copies), 'value');
  t.is(attempt(header, copies.slice(1)), 'refused');
  t.is(attempt(header, [...copies].reverse()), 'refused');
  for (let i = 0; i < header.length; i++) {
    t.is(attempt(header.slice(0, i), copies), 'refused', `cut at ${i}`);
    for (let byte = 0; byte < 256; byte++) {
      const altered = header.slice();
      altered[i] = byte;
      attempt(altered, copies);
    }
  }
});

for (const [name, value] of Object.entries(samples)) {
  test(`truncated and altered headers: ${name}`, (t) => {
    const header = Uint8Array.from(encode(value).header);
    for (let i = 0; i < header.length; i++) {
      t.is(attempt(header.slice(0, i), []), 'refused', `cut at ${i}`);
      for (const byte of [0x00, 0x01, 0x7f, 0x80, 0xff, (header[i] as number) ^ 0x01, (header[i] as number) ^ 0x40]) {
        const altered = header.slice();
        altered[i] = byte;
        attempt(altered, []);
      }
    }
    t.is(attempt(header, []), 'value');
  });
}

test('counts beyond the bytes that are there are refused before anything is made', (t) => {
  for (const tag of [0x06, 0x07, 0x08, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 0x10, 0x11, 0x12, 0x1f]) {
    const header = Uint8Array.of(1, 0, 0, 0, 0, 0, tag, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f);
    t.is(attempt(header, []), 'refused', `tag ${tag}`);
  }
});

test('endless nesting is refused', (t) => {
  const header = new Uint8Array(200_000).fill(0x01);
  header.set([1, 0, 0, 0, 0, 0]);
  for (let i = 6; i < header.length; i += 2) header.set([0x0e, 0x01], i);
  t.is(attempt(header, []), 'refused');
});

test('another version, leftover bytes and missing buffers are refused', (t) => {
  const header = Uint8Array.from(encode({ a: 1 }).header);
  t.is(attempt(Uint8Array.of(1, ...header.slice(1)), []), 'refused');
  t.is(attempt(Uint8Array.of(...header, 0), []), 'refused');
  const big = Uint8Array.from(encode(new Uint8Array(2000)).header);
  t.is(attempt(big, []), 'refused');
  t.is(attempt(big, [new ArrayBuffer(1999)]), 'refused');
  t.is(attempt(big, [new ArrayBuffer(2000)]), 'value');
});

test('a header that does not announce code cannot name any', (t) => {
  for (const tag of [0x22, 0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38]) {
    t.is(attempt(Uint8Array.of(1, 0, 0, 0, 0, 0, tag, 0, 0, 0, 0, 0, 0, 0), []), 'refused', `tag ${tag}`);
  }
  encode(() => 1);
  t.is(attempt(Uint8Array.of(1, 0, 0, 0, 0, 0, 0x33, 1, 6, 6, 103, 108, 111, 98, 97, 108), []), 'refused');
});
