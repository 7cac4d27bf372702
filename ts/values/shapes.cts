/**
 * The key lists of objects met in a message, numbered in the order of their definition. A trie over the keys finds a
 * list without building a string from it; it outlives the message, so that a shape seen before costs no allocation.
 */

/** Objects with more keys are dictionaries: their list would hardly be met again. */
const MOST_KEYS = 64;
const MOST_NODES = 8192;

/** A list of keys: the path from the root to this node. */
export class Shape {
  /** The message in which `id` holds. */
  message = 0;
  id = 0;
  private firstKey: string | undefined;
  private firstChild: Shape | undefined;
  private children: Map<string, Shape> | undefined;

  /** The list with `key` appended, if it is known. */
  get(key: string): Shape | undefined {
    return this.firstKey === key ? this.firstChild : this.children?.get(key);
  }

  add(key: string): Shape {
    const child = new Shape();
    if (this.firstChild === undefined) {
      this.firstKey = key;
      this.firstChild = child;
    } else {
      this.children ??= new Map();
      this.children.set(key, child);
    }
    return child;
  }
}

/** All shapes of one writer. */
export class ShapeTable {
  private root = new Shape();
  private nodes = 0;
  private message = 0;
  private defined = 0;

  /** Starts a message: no shape is defined in it. */
  begin(): void {
    this.message++;
    this.defined = 0;
    if (this.nodes >= MOST_NODES) {
      this.root = new Shape();
      this.nodes = 0;
    }
  }

  /** The shape for these keys; undefined when the object is better written as a dictionary. */
  find(keys: readonly string[]): Shape | undefined {
    const length = keys.length;
    if (length > MOST_KEYS) return undefined;
    let node = this.root;
    for (let i = 0; i < length; i++) {
      const key = keys[i] as string;
      let next = node.get(key);
      if (next === undefined) {
        if (this.nodes >= MOST_NODES) return undefined;
        this.nodes++;
        next = node.add(key);
      }
      node = next;
    }
    return node;
  }

  /** Whether the message holds this shape already; if not it gets the next number. */
  isDefined(shape: Shape): boolean {
    if (shape.message === this.message) return true;
    shape.message = this.message;
    shape.id = this.defined++;
    return false;
  }
}
