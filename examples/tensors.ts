/**
 * A hundred tensors go into the object store, remote tasks transpose each where it lies into memory of the store, and the
 * results are gathered: the bytes of a tensor are never copied.
 */
import { get, init, put, remote, shutdown, state } from 'heliostat';
import { Tensor } from 'heliostat/tensor';

const COLUMNS = 50;
const random = randomNumbers(42);

function createTensor(rows: number): Tensor<'float32'> {
  const tensor = Tensor.allocate('float32', [rows, COLUMNS]);
  const { data } = tensor;
  for (let i = 0; i < data.length; i++) data[i] = random();
  return tensor;
}

/** Numbers in [0, 1) that are the same in every run: mulberry32. */
function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const transpose = remote(function transpose({ shape, data }: Tensor<'float32'>): Tensor<'float32'> {
  const [rows, columns] = shape as [number, number];
  const transposed = Tensor.allocate('float32', [columns, rows]);
  const to = transposed.data;
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      to[column * rows + row] = data[row * columns + column] as number;
    }
  }
  return transposed;
});

/** Whether `after` holds in column i what `before` holds in row i. */
function isTransposed(before: Tensor<'float32'>, after: Tensor<'float32'>): boolean {
  const [rows, columns] = before.shape as [number, number];
  if (after.shape[0] !== columns || after.shape[1] !== rows) return false;
  return before.data.every((value, i) => after.data[(i % columns) * rows + Math.floor(i / columns)] === value);
}

await init();

const tensorRefs = Array.from({ length: 100 }, (_, i) => put(createTensor((i + 1) * 25)));
const tensors = await get(tensorRefs);
const bytes = tensors.reduce((sum, { data }) => sum + data.byteLength, 0);
console.log(`put ${tensorRefs.length} tensors, ${bytes} bytes; the first is ${tensorRefs[0]}`);

const transposed = await get(tensorRefs.map((ref) => transpose.remote(ref)));
for (const i of [0, 1, 98, 99]) {
  console.log(`tensor ${i}: (${tensors[i]?.shape.join(', ')}) -> (${transposed[i]?.shape.join(', ')})`);
}
const right = tensors.filter((tensor, i) => isTransposed(tensor, transposed[i] as Tensor<'float32'>)).length;
console.log(`${right} of ${tensors.length} tensors came back transposed`);
const { copied } = await state.memory();
console.log(`${copied} bytes were copied into the store`);

await shutdown();
if (right !== tensors.length) process.exitCode = 1;
