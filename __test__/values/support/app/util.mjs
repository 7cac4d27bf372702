let calls = 0;
export const seen = new Map();
export const FACTOR = 3;
export function triple(x) {
  calls++;
  return multiply(x, FACTOR);
}
const multiply = (a, b) => a * b;
export function countCalls() {
  return calls;
}
export function bump() {
  calls += 1;
  return calls;
}
export class Vector {
  static zero = new Vector(0, 0);
  static of(x, y) {
    return new this(x, y);
  }
  constructor(x, y) {
    this.x = x;
    this.y = y;
  }
  add(other) {
    return new Vector(this.x + other.x, this.y + other.y);
  }
  get length() {
    return Math.hypot(this.x, this.y);
  }
}
export default function half(x) {
  return x / 2;
}
