/** A variable that several functions share, on the side where they are revived. */
export class Cell {
  v: unknown;

  constructor(value: unknown) {
    this.v = value;
  }

  /** For calls: `cell.get()(x)` passes no `this`, `cell.v(x)` would pass the cell. */
  get(): unknown {
    return this.v;
  }
}
