/**
 * The key lists of objects met in a message, numbered in the order of their definition. A trie over the keys finds a
 * list without building a string from it; it outlives the message, so that a shape seen before costs no allocation.
 */
import { isIndex } from './elements.cjs';
import { isAlike, isModel } from './hidden-classes.cjs';

/** Objects with more keys are dictionaries: their list would hardly be met again. */
const MOST_KEYS = 64;
const MOST_NODES = 8192;
const NONE: readonly string[] = [];
const FEW_STRANGERS = 16;

/** A list of keys: the path from the root to this node. */
export class Shape {
  /** The message in which `id` holds. */
  message = 0;
  id = 0;
  /** The keys themselves, once an object had them. */
  keys: readonly string[] = NONE;
  /** For each key, the shape of what was last found there, or of the elements of a list there. */
  readonly hints: (Shape | undefined)[] = [];
  /** An object of this message whose properties were looked at, all of them ordinary. */
  private model: object | undefined;
  /** How many objects in a row were like no other. */
  private strangers = 0;
  /** The first key, unless it is an index: those do not tell hidden classes apart. */
  private firstOwn: string | undefined;
  private firstKey: string | undefined;
  private firstChild: Shape | undefined;
  private children: Map<string, Shape> | undefined;

  /** The list with `key` appended, if it is known. */
  get(key: string): Shape | undefined {
    return this.firstKey === key ? this.firstChild : this.children?.get(key);
  }

  /** Whether an object is known to have just these keys, all of them ordinary, and the prototype of all objects. */
  isOf(value: object): boolean {
    if (this.model === undefined || !isAlike(this.model, value)) return false;
    // Elements, which an object may have as well, would come first.
    for (const key in value) {
      if (key !== this.firstOwn) return false;
      this.strangers = 0;
      return true;
    }
    return false;
  }

  /**
   * Lets others be compared with an object that was looked at, if they can be. Where hardly any two objects have the same
   * hidden class, as those that a spread made, few are tried.
   */
  learn(value: object): boolean {
    const { strangers } = this;
    this.strangers = strangers + 1;
    if (strangers > FEW_STRANGERS && strangers % FEW_STRANGERS !== 0) {
      this.model = undefined;
      return false;
    }
    if (this.firstOwn === undefined || !isModel(value)) return false;
    this.model = value;
    return true;
  }

  /** Lets go of the object that others were compared with. */
  forget(): void {
    this.model = undefined;
  }

  /** Sets what the list is. */
  name(keys: readonly string[]): void {
    this.keys = keys;
    const [first] = keys;
    this.firstOwn = first === undefined || isIndex(first) ? undefined : first;
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
  private readonly learned: Shape[] = [];
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
    if (node.keys.length !== length) node.name(keys);
    return node;
  }

  /** Notes an object whose properties were looked at. */
  learn(shape: Shape, value: object): void {
    if (shape.learn(value)) this.learned.push(shape);
  }

  /** Lets go of the objects that were looked at. */
  forget(): void {
    for (const shape of this.learned) shape.forget();
    this.learned.length = 0;
  }

  /** Whether the message holds this shape already; if not it gets the next number. */
  isDefined(shape: Shape): boolean {
    if (shape.message === this.message) return true;
    shape.message = this.message;
    shape.id = this.defined++;
    return false;
  }
}
