import test from 'ava';
import { decode, encode, setHooks } from '../../dist/values/index.cjs';
import { pack, roundTrip } from './support/peer.js';

const KIB = 1024;

test('buffers of 1 KiB and more travel beside the header, smaller ones in it', (t) => {
  t.deepEqual(
    encode({ a: new Uint8Array(KIB), b: new Uint8Array(KIB - 1) }).buffers.map((view) => view.byteLength),
    [KIB],
  );
});

test('out-of-band data is the memory of the user, not a copy', (t) => {
  const data = new Float64Array(1000);
  const [view] = encode({ data }).buffers;
  t.is(view?.buffer, data.buffer);
});

test('decoding gives views of the buffers it is given', (t) => {
  const { header, buffers } = pack({ data: Float64Array.from({ length: 1000 }, (_, i) => i) });
  const { data } = decode({ header, buffers, refs: () => ({}) }) as { data: Float64Array };
  t.is(data.buffer as ArrayBuffer, buffers[0] as ArrayBuffer);
  t.is(data[999], 999);
});

test('views of one buffer share one buffer again, and it is sent once', (t) => {
  const data = Float64Array.from({ length: 5000 }, (_, i) => i);
  const value = { data, again: data, part: data.subarray(10, 2000), bytes: new Uint8Array(data.buffer, 8, 80) };
  t.is(encode(value).buffers.length, 1);
  const back = roundTrip(value);
  t.is(back.again, back.data);
  t.is(back.part.buffer, back.data.buffer);
  back.data[10] = -1;
  t.is(back.part[0], -1);
  t.is(back.bytes.length, 80);
});

test('a view takes along the bytes it shows', (t) => {
  const part = new Float32Array(100_000).subarray(500, 1000);
  t.is(encode(part).buffers[0]?.byteLength, 2000);
  t.is(roundTrip(part).length, 500);
});

test('views with odd offsets stay aligned beside each other', (t) => {
  const memory = new ArrayBuffer(4000);
  const value = [new Uint8Array(memory, 9, 3), new Float64Array(memory, 16, 200), new Uint8Array(memory, 1, 1)];
  (value[1] as Float64Array).fill(0.5);
  const back = roundTrip(value);
  t.deepEqual([...(back[1] as Float64Array)], [...(value[1] as Float64Array)]);
  t.is(back[0]?.buffer, back[1]?.buffer);
});

test('node buffers that share a pool do not take the pool along', (t) => {
  const value = [Buffer.from('one'), Buffer.from('two'), Buffer.from('three')];
  const { header, buffers } = pack(value);
  t.is(buffers.length, 0);
  t.true(header.length < 80);
  t.deepEqual(roundTrip(value).map(String), ['one', 'two', 'three']);
});

test('overlapping node buffers still share memory', (t) => {
  const memory = Buffer.from('abcdefgh');
  const back = roundTrip([memory, memory.subarray(2, 4)]);
  (back[0] as Buffer)[2] = 0x5a;
  t.is(String(back[1]), 'Zd');
});

test('an array buffer and views of it', (t) => {
  const memory = new ArrayBuffer(64);
  const back = roundTrip({ memory, view: new DataView(memory, 8, 8) });
  t.is(back.view.buffer, back.memory);
  t.is(back.view.byteOffset, 8);
  t.is(back.memory.byteLength, 64);
});

test('shared memory comes back as shared memory of its own', (t) => {
  const memory = new SharedArrayBuffer(2000);
  const view = new Int32Array(memory);
  view[3] = 7;
  const back = roundTrip(view);
  t.true(back.buffer instanceof SharedArrayBuffer);
  t.not(back.buffer, memory);
  t.is(back[3], 7);
});

test('a resizable buffer stays resizable', (t) => {
  const Resizable = ArrayBuffer as unknown as new (length: number, options: object) => ArrayBuffer;
  const back = roundTrip(new Resizable(10, { maxByteLength: 100 })) as unknown as {
    resizable: boolean;
    maxByteLength: number;
    byteLength: number;
  };
  t.like(back, { resizable: true, maxByteLength: 100, byteLength: 10 });
});

test('a detached buffer is refused', (t) => {
  const memory = new ArrayBuffer(8);
  structuredClone(memory, { transfer: [memory] });
  t.throws(() => encode({ memory }), { message: /\$\.memory.*detached/ });
});

test('`own` sees each small buffer once, and no others', (t) => {
  const { header, buffers } = pack({ small: new Uint8Array([1, 2]), large: new Uint8Array(2000) });
  const owned: ArrayBuffer[] = [];
  const own = (buffer: ArrayBuffer) => {
    owned.push(buffer);
    return buffer;
  };
  const back = decode({ header, buffers, refs: () => ({}), own }) as { small: Uint8Array };
  t.deepEqual(owned, [back.small.buffer as ArrayBuffer]);
});

test.serial('drafts are encoded as their views and listed, references by index', (t) => {
  class Draft {
    view = new Float64Array(500);
  }
  class Ref {}
  setHooks({
    isRef: (value) => value instanceof Ref,
    isDraft: (value) => (value instanceof Draft ? value.view : undefined),
    serializationError: (path, reason) => new Error(`${path}: ${reason}`),
    packageName: 'heliostat',
    resolveSelf: () => ({}),
    errorClasses: () => ({}),
  });
  const draft = new Draft();
  const ref = new Ref();
  const other = new Ref();
  const { header, buffers, refs, seals } = encode({ draft, list: [ref, other, ref], again: draft });
  t.deepEqual(seals, [draft]);
  t.deepEqual(refs, [ref, other]);
  const back = decode({
    header: Uint8Array.from(header),
    buffers: buffers.map((view) => view.buffer as ArrayBuffer),
    refs: (index) => refs[index] as object,
  }) as { draft: Float64Array; again: Float64Array; list: object[] };
  t.is(back.draft.length, 500);
  t.is(back.draft, back.again);
  t.deepEqual(back.list, [ref, other, ref]);
  t.is(back.list[0], ref);
});
