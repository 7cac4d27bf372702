/** A hundred tensors go into the object store, remote tasks transpose each where it lies, and the results are gathered. */
import { get, init, put, remote, shutdown } from 'heliostat';

interface Tensor {
  shape: [rows: number, columns: number];
  data: Float32Array;
}

const COLUMNS = 50;
const random = randomNumbers(42);

function createTensor(rows: number): Tensor {
  return { shape: [rows, COLUMNS], data: Float32Array.from({ length: rows * COLUMNS }, random) };
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

const transpose = remote(function transpose({ shape: [rows, columns], data }: Tensor): Tensor {
  const transposed = new Float32Array(data.length);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      transposed[column * rows + row] = data[row * columns + column] as number;
    }
  }
  return { shape: [columns, rows], data: transposed };
});

/** Whether `after` holds in column i what `before` holds in row i. */
function isTransposed(before: Tensor, after: Tensor): boolean {
  const [rows, columns] = before.shape;
  if (after.shape[0] !== columns || after.shape[1] !== rows) return false;
  return before.data.every((value, i) => after.data[(i % columns) * rows + Math.floor(i / columns)] === value);
}

await init();

const tensors = Array.from({ length: 100 }, (_, i) => createTensor((i + 1) * 25));
const tensorRefs = tensors.map((tensor) => put(tensor));
const bytes = tensors.reduce((sum, { data }) => sum + data.byteLength, 0);
console.log(`put ${tensorRefs.length} tensors, ${bytes} bytes; the first is ${tensorRefs[0]}`);

const transposed = await get(tensorRefs.map((ref) => transpose.remote(ref)));
for (const i of [0, 1, 98, 99]) {
  console.log(`tensor ${i}: (${tensors[i]?.shape.join(', ')}) -> (${transposed[i]?.shape.join(', ')})`);
}
const right = tensors.filter((tensor, i) => isTransposed(tensor, transposed[i] as Tensor)).length;
console.log(`${right} of ${tensors.length} tensors came back transposed`);

await shutdown();
if (right !== tensors.length) process.exitCode = 1;
