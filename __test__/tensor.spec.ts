import { createRequire } from 'node:module';
import test from 'ava';
import { allocate, get, put, remote, SerializationError, state } from 'heliostat';
import * as imported from 'heliostat/tensor';
import { eventually, withCluster, workerPids } from './support/cluster.js';

const { Tensor } = imported;
type Numbers = imported.Tensor<'float64'>;

withCluster(test);

async function copied(): Promise<number> {
  return (await state.memory()).copied;
}

test('import and require give one class', (t) => {
  t.is(createRequire(import.meta.url)('heliostat/tensor').Tensor, Tensor);
});

test.serial('a task reads a tensor and makes another without a byte copied into the store', async (t) => {
  const input = Tensor.allocate('float64', [300, 200]);
  for (let i = 0; i < input.size; i++) input.data[i] = i;
  const before = await copied();
  const ref = put(input);
  t.throws(() => input.data, { instanceOf: TypeError, message: /sealed/ });
  const double = remote((x: Numbers): Numbers => {
    const y = Tensor.allocate('float64', x.shape);
    for (let i = 0; i < x.size; i++) y.data[i] = 2 * (x.data[i] as number);
    return y;
  });
  const output = await get(double.remote(ref));
  t.true(output instanceof Tensor);
  t.deepEqual(output.shape, [300, 200]);
  t.is(output.dtype, 'float64');
  t.true(output.data.every((value, i) => value === 2 * i));
  t.is((await copied()) - before, 0);
});

test.serial('bytes that are copied into the store are counted, also those of processes that are gone', async (t) => {
  const before = await copied();
  const data = new Float64Array(100_000);
  const ref = put(new Tensor(data, [100_000]));
  const ofPut = (await copied()) - before;
  t.true(ofPut >= data.byteLength && ofPut < data.byteLength + 8192, `${ofPut}`);
  const make = remote(() => ({ pid: process.pid, data: new Float64Array(200_000) }));
  const { pid } = await make.remote().get();
  process.kill(pid, 'SIGKILL');
  await eventually('the end of the worker', async () => !(await workerPids()).includes(pid));
  t.true((await copied()) - before >= data.byteLength + 1_600_000);
  t.is((await get(ref)).size, 100_000);
});

test.serial(
  'allocated tensors anywhere in a value are sealed with it; those that are dropped give their memory back',
  async (t) => {
    const make = remote((n: number) => {
      const values = Tensor.allocate('int32', [n]);
      values.data.fill(7);
      return { name: 'sevens', parts: [values] };
    });
    const { name, parts } = await make.remote(50_000).get();
    t.is(name, 'sevens');
    t.true(parts[0]?.data.every((value) => value === 7));
    {
      using dropped = Tensor.allocate('uint8', [1 << 20]);
      t.is(dropped.data.length, 1 << 20);
    }
    t.is((await state.memory()).drafts, 0);
  },
);

test('a tensor stands over an array or a draft, and keeps its identity and its memory within a value', async (t) => {
  const data = Int16Array.of(1, 2, 3, 4, 5, 6);
  const tensor = new Tensor(data, [2, 3]);
  t.is(tensor.data, data);
  t.is(tensor.dtype, 'int16');
  const [first, second, array] = await get(put([tensor, tensor, data] as const));
  t.is(first, second);
  t.is(first.data, array as Int16Array<ArrayBuffer>);
  t.deepEqual([...first.data], [1, 2, 3, 4, 5, 6]);
  t.true(Object.isFrozen(first) && Object.isFrozen(first.shape));
  const scalar = await get(put(new Tensor(Float32Array.of(1.5), [])));
  t.deepEqual([scalar.shape, scalar.size, scalar.data[0]], [[], 1, 1.5]);
  const empty = await get(put(Tensor.allocate('uint64', [0, 5])));
  t.deepEqual([empty.shape, empty.size, empty.data.length], [[0, 5], 0, 0]);
});

test('every type of elements arrives as it is', async (t) => {
  const dtypes = ['float64', 'float32', 'int8', 'uint8', 'int16', 'uint16', 'int32', 'uint32'] as const;
  for (const dtype of dtypes) {
    const tensor = Tensor.allocate(dtype, [2, 1000]);
    tensor.data.fill(3);
    const back = await get(put(tensor));
    t.is(back.dtype, dtype);
    t.true(back.data.every((value) => value === 3));
  }
  for (const dtype of ['int64', 'uint64'] as const) {
    const tensor = Tensor.allocate(dtype, [3]);
    tensor.data.fill(5n);
    t.deepEqual([...(await get(put(tensor))).data], [5n, 5n, 5n]);
  }
});

test('what is no tensor is refused with what would be right', (t) => {
  t.throws(() => new Tensor(Float64Array.of(1, 2), [3]), { instanceOf: RangeError, message: /3 elements, .* has 2/ });
  t.throws(() => new Tensor([1, 2] as never, [2]), { instanceOf: TypeError, message: /made of a typed array/ });
  t.throws(() => new Tensor(new DataView(new ArrayBuffer(8)) as never, [8]), { instanceOf: TypeError });
  t.throws(() => new Tensor(Float64Array.of(1), [-1]), { instanceOf: RangeError, message: /shape\[0\]/ });
  t.throws(() => new Tensor(Float64Array.of(1), 1 as never), { instanceOf: TypeError, message: /shape/ });
  t.throws(() => Tensor.allocate('complex' as never, [1]), { instanceOf: TypeError, message: /dtype/ });
  t.throws(() => Tensor.allocate('toString' as never, [1]), { instanceOf: TypeError, message: /dtype/ });
  class Matrix extends Tensor {}
  const matrix = new Matrix(Float64Array.of(1), [1]);
  t.throws(() => put([matrix]), { instanceOf: SerializationError, message: /\$\[0\].*extends Tensor/ });
  using draft = allocate(Uint8Array, 4);
  t.is(new Tensor(draft as never, [4]).size, 4);
});
