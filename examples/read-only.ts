/**
 * What comes out of the object store is shared by all who read it, and cannot be changed. Where the runtime has immutable buffers
 * (Node 26) a write throws at its line; before, it is undone, and the task that wrote fails. To change a value, copy it first.
 */
import { init, put, remote, shutdown, TaskError } from 'heliostat';

const addOne = remote(function addOne(numbers: Float64Array): Float64Array {
  for (let i = 0; i < numbers.length; i++) numbers[i] = (numbers[i] as number) + 1;
  return numbers;
});

const addOneToCopy = remote(function addOneToCopy(numbers: Float64Array): Float64Array {
  const copy = numbers.slice();
  for (let i = 0; i < copy.length; i++) copy[i] = (copy[i] as number) + 1;
  return copy;
});

await init();

const zeros = put(new Float64Array(100_000));
try {
  await addOne.remote(zeros).get();
} catch (error) {
  if (!(error instanceof TaskError)) throw error;
  const { name, message } = error.cause as Error;
  console.log(`without a copy: ${name}: ${message}`);
}

const ones = await addOneToCopy.remote(zeros).get();
console.log(`with .slice(): ${ones.length} numbers, from ${ones[0]} to ${ones.at(-1)}`);

const stored = await zeros.get();
console.log(`in the store: still ${stored.every((number) => number === 0) ? 'zeros' : 'changed'}`);

await shutdown();
