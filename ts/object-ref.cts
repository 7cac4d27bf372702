/** References: the handles that user programs hold. */
import { inspect } from 'node:util';
import { OutOfBandRefError, RefDisposedError } from './errors.cjs';
import { native } from './native.cjs';
import type { GetOptions } from './types.cjs';

/** What the rest of the package needs of a reference, kept off the public class. */
interface Internals {
  create(handle: number, session: number, site: CallSite | undefined): ObjectRef<any>;
  handle(ref: ObjectRef<any>): number;
  site(ref: ObjectRef<any>): CallSite | undefined;
}

/** Where in the user's program a task was submitted; the text is made only when it is read. */
export interface CallSite {
  stack?: string;
}

/** A session's references end with it: a handle of an earlier one must never be taken for one of the present. */
export const session = { current: 0 };

const finalizers = new FinalizationRegistry<{ handle: number; session: number }>((held) => {
  if (held.session === session.current) native.release(held.handle);
});

let getter: (ref: ObjectRef<any>, options?: GetOptions) => Promise<any>;
let internals: Internals;

/** Breaks the circle between references and reading them. */
export function setGetter(get: typeof getter): void {
  getter = get;
}

const CREATE = Symbol('create');

// structuredClone reads own enumerable properties; this one makes it fail instead of giving an empty object.
const OUT_OF_BAND: PropertyDescriptor = {
  enumerable: true,
  configurable: false,
  get() {
    throw outOfBand('structuredClone');
  },
};

function outOfBand(by: string): OutOfBandRefError {
  return new OutOfBandRefError(
    `an ObjectRef cannot be copied by ${by}: the copy would not be counted, and its object could be freed`,
    {
      hint: 'pass the reference to a task, put it inside a value, or get its value first',
    },
  );
}

/**
 * A pointer to an immutable remote object, and a future of its value.
 *
 * Deliberately not thenable: an async function may return one, and Promise.all leaves it alone.
 */
export class ObjectRef<T = unknown> implements Disposable {
  readonly #held: { handle: number; session: number };
  readonly #site: CallSite | undefined;
  #id: string | undefined;
  #disposed = false;
  /** Keeps T in the type. */
  declare private readonly __type: T;

  private constructor(token: symbol, handle: number, owner: number, site: CallSite | undefined) {
    if (token !== CREATE) throw new TypeError('an ObjectRef comes from put() or remote(), not from its constructor');
    this.#held = { handle, session: owner };
    this.#site = site;
    Object.defineProperty(this, 'ObjectRef', OUT_OF_BAND);
    finalizers.register(this, this.#held, this.#held);
  }

  /** 56 hexadecimal digits: the task's id, then the object's index. */
  get id(): string {
    this.#id ??= native.refId(this.#handle());
    return this.#id;
  }

  /** The value: see `get`. */
  get(options?: GetOptions): Promise<T> {
    return getter(this, options);
  }

  /** Whether both point to the same object. */
  equals(other: ObjectRef): boolean {
    return other instanceof ObjectRef && other.id === this.id;
  }

  /** Drops this handle's reference now; garbage collection is the backstop. Harmless when repeated. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    // Its name stays readable, in messages about it for example.
    if (this.#held.session === session.current) this.#id ??= native.refId(this.#held.handle);
    this.#disposed = true;
    finalizers.unregister(this.#held);
    if (this.#held.session === session.current) native.release(this.#held.handle);
  }

  toString(): string {
    return `ObjectRef(${this.id})`;
  }

  toJSON(): never {
    throw outOfBand('JSON.stringify');
  }

  [inspect.custom](): string {
    return this.toString();
  }

  #handle(): number {
    if (this.#disposed) {
      throw new RefDisposedError(
        `${this.#id === undefined ? 'this ObjectRef' : `ObjectRef(${this.#id})`} was disposed`,
        {
          hint: 'the block of its `using`, or a call of [Symbol.dispose](), ended before this use',
        },
      );
    }
    if (this.#held.session !== session.current) throw ended();
    return this.#held.handle;
  }

  static {
    internals = {
      create: (handle, owner, site) => new ObjectRef(CREATE, handle, owner, site),
      handle: (ref) => ref.#handle(),
      site: (ref) => ref.#site,
    };
  }
}

let ended: () => Error;

/** How a use of an ended session's reference fails. */
export function setEnded(make: () => Error): void {
  ended = make;
}

/** A reference for a handle that native code gave; it owns the handle from now on. */
export function makeRef(handle: number, site?: CallSite): ObjectRef<any> {
  return internals.create(handle, session.current, site);
}

/** The native handle; throws when the reference was disposed or its session has ended. */
export function handleOf(ref: ObjectRef<any>): number {
  return internals.handle(ref);
}

/** Where its task was submitted, if a task makes it. */
export function siteOf(ref: ObjectRef<any>): CallSite | undefined {
  return internals.site(ref);
}
