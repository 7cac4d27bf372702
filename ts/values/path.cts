/** Where in a value the writer stands, kept without allocating and rendered only when something is refused. */

/** How a part hangs on its value. */
export enum Step {
  Property,
  Index,
  MapKey,
  MapValue,
  SetItem,
  Captured,
  Label,
}

const PLAIN_NAME = /^[\p{ID_Start}$_][\p{ID_Continue}$\u200c\u200d]*$/u;

function renderKey(key: unknown): string {
  if (typeof key === 'symbol') return `[${String(key)}]`;
  const name = String(key);
  if (PLAIN_NAME.test(name)) return `.${name}`;
  return /^(0|[1-9]\d*)$/.test(name) ? `[${name}]` : `[${JSON.stringify(name)}]`;
}

function renderMapKey(key: unknown, index: number): string {
  return typeof key === 'string' || typeof key === 'number' ? JSON.stringify(key) : `<key ${index}>`;
}

/** The steps shown of a path that is longer. */
const MOST_STEPS = 40;

/** A stack of steps below a root. */
export class Path {
  root: string;
  depth = 0;
  private base = 0;
  private readonly steps: Step[] = [];
  private readonly keys: unknown[] = [];
  private readonly indices: number[] = [];

  constructor(root: string) {
    this.root = root;
  }

  /** Names the part of the innermost value that is visited next. */
  at(step: Step, key: unknown, index = 0): void {
    const top = this.depth - 1;
    this.steps[top] = step;
    this.keys[top] = key;
    this.indices[top] = index;
  }

  /** Drops the references to the value that was visited. */
  clear(): void {
    this.keys.length = 0;
    this.depth = 0;
    this.base = 0;
  }

  /** Starts a path of its own above the current one; gives what {@link Path.restore} takes back. */
  rebase(root: string): { root: string; base: number } {
    const outer = { root: this.root, base: this.base };
    this.root = root;
    this.base = this.depth;
    return outer;
  }

  restore(outer: { root: string; base: number }): void {
    this.root = outer.root;
    this.base = outer.base;
  }

  /** `$.a[3].b`; a captured variable is `task → name`. */
  toString(): string {
    let text = this.root;
    const first = Math.max(this.base, this.depth - MOST_STEPS);
    if (first > this.base) text += ` … (${first - this.base} levels)`;
    for (let i = first; i < this.depth; i++) {
      const key = this.keys[i];
      const index = this.indices[i] as number;
      switch (this.steps[i]) {
        case Step.Property:
          text += renderKey(key);
          break;
        case Step.Index:
          text += `[${index}]`;
          break;
        case Step.MapKey:
          text += `.<key ${index}>`;
          break;
        case Step.MapValue:
          text += `.get(${renderMapKey(key, index)})`;
          break;
        case Step.SetItem:
          text += `.<item ${index}>`;
          break;
        case Step.Captured:
          text += ` → ${String(key)}`;
          break;
        default:
          text += `.<${String(key)}>`;
      }
    }
    return text;
  }
}
