/**
 * `heliostat/tensor`: numbers with a shape, in memory that tasks share. There is no arithmetic here: hand `data` to the
 * library of your choice.
 *
 * @packageDocumentation
 */
import * as check from './check.cjs';
import { draftView } from './draft.cjs';
import { allocate } from './objects.cjs';
import type { Draft, TypedArray } from './types.cjs';
import { defineOwnClass } from './values/own-classes.cjs';
import { Refusal } from './values/refusal.cjs';
import { typedArrayName } from './values/slots.cjs';

/** The array behind each type of elements. */
export interface TensorArrays {
  float64: Float64Array;
  float32: Float32Array;
  int8: Int8Array;
  uint8: Uint8Array;
  int16: Int16Array;
  uint16: Uint16Array;
  int32: Int32Array;
  uint32: Uint32Array;
  int64: BigInt64Array;
  uint64: BigUint64Array;
}

/** What the elements of a tensor are. */
export type DType = keyof TensorArrays;

type ArrayClass<A extends TypedArray> = new (buffer: ArrayBuffer, byteOffset: number, length: number) => A;

const CLASSES: { readonly [D in DType]: ArrayClass<TensorArrays[D]> } = {
  float64: Float64Array,
  float32: Float32Array,
  int8: Int8Array,
  uint8: Uint8Array,
  int16: Int16Array,
  uint16: Uint16Array,
  int32: Int32Array,
  uint32: Uint32Array,
  int64: BigInt64Array,
  uint64: BigUint64Array,
};

/** By what an array of any realm calls itself. */
const DTYPES = new Map<unknown, DType>(
  (Object.keys(CLASSES) as DType[]).map((dtype) => [(CLASSES[dtype] as { name: string }).name, dtype]),
);

function dtypeOf(data: unknown): DType | undefined {
  return ArrayBuffer.isView(data) ? DTYPES.get(typedArrayName(data)) : undefined;
}

/** The number of elements of a shape, which is checked. */
function sizeOf(shape: readonly number[]): number {
  if (!Array.isArray(shape)) throw new TypeError(`shape must be an array of lengths, got ${check.describe(shape)}`);
  let size = 1;
  for (let axis = 0; axis < shape.length; axis++) {
    check.number(shape[axis] ?? Number.NaN, `shape[${axis}]`, { min: 0, max: Number.MAX_SAFE_INTEGER, integer: true });
    size *= shape[axis] as number;
  }
  return size;
}

/** The array of a tensor, or the draft that its memory is. */
type Store<D extends DType> = TensorArrays[D] | Draft<TensorArrays[D]>;

/**
 * Elements of one type in the order of their indices, the last axis first (row-major), and the lengths of the axes.
 *
 * A tensor goes into `put`, arguments and results as it is. What comes out is over the store's memory: nothing is copied
 * on the way there, and its `data` must not be written into. One that was made by {@link Tensor.allocate} is not copied
 * on the way in either.
 *
 * @example
 * const double = remote((x: Tensor<'float32'>) => {
 *   const y = Tensor.allocate('float32', x.shape);
 *   x.data.forEach((value, i) => { y.data[i] = 2 * value; });
 *   return y;
 * });
 */
export class Tensor<D extends DType = DType> {
  readonly #store: Store<D>;
  /** What the elements are. */
  readonly dtype: D;
  /** The length of each axis; empty for a single number. */
  readonly shape: readonly number[];

  /**
   * A tensor over an array, which is not copied. Throws TypeError for other data and RangeError where the shape has
   * another number of elements than the array.
   */
  constructor(data: TensorArrays[D], shape: readonly number[]) {
    const store = data as Store<D>;
    const draft = typeof data === 'object' && data !== null ? draftView(data) : undefined;
    const dtype = dtypeOf(draft ?? data);
    if (dtype === undefined) {
      throw new TypeError(
        `a tensor is made of a typed array (${[...DTYPES.keys()].join(', ')}), got ${check.describe(data)}`,
      );
    }
    const size = sizeOf(shape);
    const { length } = draft ?? data;
    if (size !== length) {
      throw new RangeError(`a tensor of shape (${shape.join(', ')}) has ${size} elements, but its data has ${length}`);
    }
    this.#store = store;
    this.dtype = dtype as D;
    this.shape = Object.freeze([...shape]);
    // Nothing else may hang on it: a tensor arrives as it left.
    Object.freeze(this);
  }

  /**
   * A tensor of zeros in the shared store, to fill in place. `put`, or returning it from a task, seals its memory without
   * a copy; after that `data` throws TypeError, since others may be reading. Dropped unsealed, it gives its memory back.
   *
   * @param dtype - what the elements are
   * @param shape - the length of each axis
   * @throws ObjectStoreFullError where the store has no room for it
   */
  static allocate<D extends DType>(dtype: D, shape: readonly number[]): Tensor<D> {
    const type = Object.hasOwn(CLASSES, dtype) ? CLASSES[dtype] : undefined;
    if (type === undefined) {
      throw new TypeError(`dtype must be one of ${Object.keys(CLASSES).join(', ')}, got ${check.describe(dtype)}`);
    }
    const size = sizeOf(shape);
    return new Tensor<D>(allocate(type as ArrayClass<TensorArrays[D]>, size) as never, shape);
  }

  /** The elements, in memory that this tensor shares with its origin. */
  get data(): TensorArrays[D] {
    return (draftView(this.#store) ?? this.#store) as TensorArrays[D];
  }

  /** The number of elements. */
  get size(): number {
    return sizeOf(this.shape);
  }

  /** Gives the memory of an allocated tensor back that was not sealed; of others it does nothing. */
  [Symbol.dispose](): void {
    if (!ArrayBuffer.isView(this.#store)) (this.#store as Draft<TensorArrays[D]>)[Symbol.dispose]();
  }

  static {
    defineOwnClass('Tensor', {
      partsOf(value) {
        if (!(#store in value)) return undefined;
        if (Object.getPrototypeOf(value) !== Tensor.prototype) {
          throw new Refusal(
            'is of a class that extends Tensor',
            'Send a Tensor, or register a serializer for the class',
          );
        }
        return [value.#store, value.shape.slice()];
      },
      revive(parts) {
        const [data, shape] = parts as [TensorArrays[DType], number[]];
        return new Tensor(data, shape);
      },
    });
  }
}
