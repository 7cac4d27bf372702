/** A module with state, as a program would have one. */
export let calls = 0;
export const table = new Map<string, number>();

export function count(): number {
  return ++calls;
}

export function countSoFar(): number {
  return calls;
}

export function remember(key: string, value: number): void {
  table.set(key, value);
}
