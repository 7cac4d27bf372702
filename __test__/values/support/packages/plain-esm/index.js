export function twice(x) {
  return x * 2;
}
export default function label(x) {
  return `esm:${x}`;
}
export const limits = { low: 1, high: 9 };
export class Point {
  constructor(x, y) {
    this.x = x;
    this.y = y;
  }
  get length() {
    return Math.hypot(this.x, this.y);
  }
}
export class Sealed {
  #secret = 1;
  reveal() {
    return this.#secret;
  }
}
