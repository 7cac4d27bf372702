export const Color = { Red: 'r', Green: 'g' } as const;
export function wrap<T>(x: T): T[] {
  return [x, x];
}
export class Box<T> {
  v: T;
  constructor(v: T) {
    this.v = v;
  }
  get(): T {
    return this.v;
  }
}
