/** The functions that came with tasks, revived once, so that what they hold lasts between tasks. */
import { native } from '../native.cjs';
import { fromRaw } from '../transfer.cjs';
import type { ErrorClass } from './retries.cjs';

export type AnyFunction = (...args: unknown[]) => unknown;

/** A function, and the error classes after which its tasks are tried again, if it came with some. */
export interface Callable {
  fn: AnyFunction;
  retries: ErrorClass[] | undefined;
}

/** By their numbers, which are never used again. */
const functions = new Map<number, Callable>();

/** A function that was revived already. */
export function revived(number: number): Callable | undefined {
  return functions.get(number);
}

/** A function, revived if need be. */
export async function functionOf(number: number): Promise<Callable> {
  const known = functions.get(number);
  if (known !== undefined) return known;
  const raw = native.functionValue(number);
  if (raw === undefined) throw new Error('the function of this task did not arrive');
  const value = (await fromRaw(raw)).value as AnyFunction | [AnyFunction, ...ErrorClass[]];
  const [fn, ...retries] = Array.isArray(value) ? value : [value];
  const callable = { fn, retries: Array.isArray(value) ? retries : undefined };
  functions.set(number, callable);
  return callable;
}

/** Drops functions that nobody will call any more. */
export function forget(): void {
  for (const number of native.takeForgotten() ?? []) functions.delete(number);
}
