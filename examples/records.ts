/** Records to be sorted: a KiB each, of which the first four bytes are the key. */
import { allocate, type Draft } from 'heliostat';

export const RECORD = 1024;
const WORDS = RECORD / 4;

/** A key for a record's number, all over the range: the finalizer of MurmurHash3. */
function keyOf(number: number): number {
  let key = number | 0;
  key = Math.imul(key ^ (key >>> 16), 0x85ebca6b);
  key = Math.imul(key ^ (key >>> 13), 0xc2b2ae35);
  return (key ^ (key >>> 16)) >>> 0;
}

/** The records from number `first` on, made in the object store's memory. */
export function generate(first: number, count: number): Draft<Uint32Array> {
  const draft = allocate(Uint32Array, count * WORDS);
  const words = draft.view;
  for (let record = 0; record < count; record += 1) {
    const at = record * WORDS;
    const key = keyOf(first + record);
    words.fill(key, at, at + WORDS);
    words[at + 1] = first + record;
  }
  return draft;
}

/** Sorts the records of all inputs into `parts` drafts, each of which has its share of the range of keys from `low` on. */
export function sortRecords(
  inputs: readonly Uint32Array[],
  low: number,
  high: number,
  parts: number,
): Draft<Uint32Array>[] {
  const starts: number[] = [];
  let count = 0;
  for (const input of inputs) {
    starts.push(count);
    count += input.length / WORDS;
  }
  // Key and place in one number of 53 bits: numbers are sorted without calling anybody.
  const order = new Float64Array(count);
  const sizes = new Array<number>(parts).fill(0);
  const places = 2 ** 21;
  if (count > places) throw new RangeError(`${count} records are more than ${places}`);
  for (const [i, input] of inputs.entries()) {
    const start = starts[i] as number;
    for (let record = 0; record * WORDS < input.length; record += 1) {
      const key = input[record * WORDS] as number;
      const part = Math.floor(((key - low) / (high - low)) * parts);
      order[start + record] = key * places + start + record;
      sizes[part] = (sizes[part] as number) + 1;
    }
  }
  order.sort();
  let from = 0;
  return sizes.map((size) => {
    const draft = allocate(Uint32Array, size * WORDS);
    const { view } = draft;
    let input = 0;
    for (let record = 0; record < size; record += 1, from += 1) {
      const place = (order[from] as number) % places;
      if (place < (starts[input] as number) || place >= (starts[input + 1] ?? count)) input = inputOf(starts, place);
      const at = (place - (starts[input] as number)) * WORDS;
      const words = inputs[input] as Uint32Array;
      const to = record * WORDS;
      for (let word = 0; word < WORDS; word += 1) view[to + word] = words[at + word] as number;
    }
    return draft;
  });
}

/** The last of the inputs that start at or before a place. */
function inputOf(starts: readonly number[], place: number): number {
  let [low, high] = [0, starts.length - 1];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if ((starts[middle] as number) <= place) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** What a sorted part holds; throws when a byte is not what it should be. */
export interface Summary {
  readonly count: number;
  readonly first: number;
  readonly last: number;
  /** The sum of the records' numbers: each must be there once. */
  readonly sum: number;
}

export function check(words: Uint32Array): Summary {
  let [sum, before] = [0, 0];
  for (let at = 0; at < words.length; at += WORDS) {
    const key = words[at] as number;
    const number = words[at + 1] as number;
    if (key < before) throw new Error(`record ${at / WORDS} is smaller than the one before it`);
    if (key !== keyOf(number)) throw new Error(`record ${at / WORDS} has another key`);
    for (let word = 2; word < WORDS; word += 1)
      if (words[at + word] !== key) throw new Error(`record ${at / WORDS} has another word ${word}`);
    before = key;
    sum += number;
  }
  return { count: words.length / WORDS, first: words[0] ?? 0, last: before, sum };
}
