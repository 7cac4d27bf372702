/** Streams: the items of a remote generator, each a reference, as its caller takes them. */
/// <reference lib="esnext.disposable" />
import { inspect } from 'node:util';
import { taskSignal } from './context.cjs';
import { native, thread } from './native.cjs';
import { type CallSite, endedSession, guardOf, handleOf, makeRef, type ObjectRef, outOfBand } from './object-ref.cjs';
import { Finalizers } from './realm.cjs';
import { endWait, whenOver } from './runtime.cjs';
import { STREAM, translated } from './transfer.cjs';

/** What native code gives in the place of a handle. */
const NONE = -1;
/** Items that are handed out without a turn of the event loop: whoever takes what is there must not starve the rest. */
const ITEMS_OF_TURN = 64;
let ofThisTurn = 0;

const CREATE = Symbol('create');
const DONE: IteratorReturnResult<undefined> = { done: true, value: undefined };

/** Streams are named by the handle of the reference that tells of their end, which native code keeps as long as they are open. */
interface Held {
  stream: number;
  session: number;
}

const finalizers = new Finalizers<Held>(({ stream, session }) => {
  if (session === thread.session) native.dropStream(stream);
});

/** A generator for a call that streams, given the reference to its end. */
export let makeStream: (completed: ObjectRef<void>, site: CallSite | undefined) => ObjectRefGenerator<any>;

/**
 * The items of a remote generator: each is a reference, usable before the next one is made.
 *
 * Taking is `for await`, `next()`, or {@link ObjectRefGenerator.values} for the values themselves. Leaving the loop, `return()`,
 * `await using` and losing the last reference to the generator cancel its task, whose `finally` blocks run. There is one
 * consumer: a generator can't be sent to others, its references can.
 *
 * @example
 * const pages = remote(async function* (count: number) {
 *   for (let n = 1; n <= count; n++) yield { n, text: `page ${n}` };
 * });
 * for await (const ref of pages.remote(3)) console.log((await ref.get()).text);
 */
export class ObjectRefGenerator<T = unknown> implements AsyncIterableIterator<ObjectRef<T>>, AsyncDisposable {
  /** The first property, so that copying fails at it. @internal */
  readonly ObjectRefGenerator = guardOf('an ObjectRefGenerator');
  /** Ready when the task has ended: `get` throws what the task threw, or TaskCancelledError after a cancel. */
  readonly completed: ObjectRef<void>;
  readonly #held: Held;
  readonly #site: CallSite | undefined;
  #closed = false;
  /** The latest call of next() that waits. */
  #waiting: Promise<void> | undefined;

  private constructor(token: symbol, completed: ObjectRef<void>, site: CallSite | undefined) {
    if (token !== CREATE)
      throw new TypeError(
        'an ObjectRefGenerator comes from remote() of a generator function, not from its constructor',
      );
    this.completed = completed;
    this.#held = { stream: handleOf(completed), session: thread.session };
    this.#site = site;
    finalizers.register(this, this.#held, this);
  }

  /** The reference of the next item, as soon as there is one. A failed task gives one last reference, whose get throws. */
  next(): Promise<IteratorResult<ObjectRef<T>, undefined>> {
    if (this.#waiting !== undefined) return this.#afterOthers(this.#waiting);
    try {
      const taken = this.#take();
      if (taken === undefined) return this.#afterOthers(Promise.resolve());
      ofThisTurn += 1;
      if (ofThisTurn < ITEMS_OF_TURN) return Promise.resolve(taken);
      ofThisTurn = 0;
      return new Promise((resolve) => setImmediate(resolve, taken));
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** Takes no more items, and cancels the task if it has not ended. */
  async return(value?: unknown): Promise<IteratorReturnResult<any>> {
    this.#close();
    return { done: true, value: await value };
  }

  /** The same; rejects with `error`, as a generator does that does not catch it. */
  async throw(error?: unknown): Promise<IteratorReturnResult<any>> {
    this.#close();
    throw error;
  }

  /**
   * The values of the items in their order, each read and let go of. Throws what the task threw, after the items before.
   *
   * @example
   * for await (const page of pages.remote(3).values()) console.log(page.text);
   */
  async *values(): AsyncGenerator<T, void, undefined> {
    for await (const ref of this) {
      let value: T;
      try {
        value = await ref.get();
      } finally {
        ref[Symbol.dispose]();
      }
      yield value;
    }
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** Takes no more items: see {@link ObjectRefGenerator.return}. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#close();
  }

  toString(): string {
    return `ObjectRefGenerator(${this.completed.id.slice(0, TASK_DIGITS)})`;
  }

  toJSON(): never {
    throw outOfBand('an ObjectRefGenerator', 'JSON.stringify');
  }

  [inspect.custom](): string {
    return this.toString();
  }

  /** The next item or the end; undefined when it has to be waited for. */
  #take(): IteratorResult<ObjectRef<T>, undefined> | undefined {
    if (this.#closed) return DONE;
    const { stream, session } = this.#held;
    if (session !== thread.session) throw endedSession();
    const handle = translated(() => native.nextItem(stream));
    if (handle >= 0) return { done: false, value: makeRef(handle, this.#site) };
    if (handle !== NONE) return undefined;
    this.#close();
    return DONE;
  }

  /** Calls are answered in their order. */
  #afterOthers(others: Promise<void>): Promise<IteratorResult<ObjectRef<T>, undefined>> {
    const result = others.then(() => this.#arrived());
    const settled = result.then(
      () => {},
      () => {},
    );
    this.#waiting = settled;
    void settled.then(() => {
      if (this.#waiting === settled) this.#waiting = undefined;
    });
    return result;
  }

  async #arrived(): Promise<IteratorResult<ObjectRef<T>, undefined>> {
    for (;;) {
      const taken = this.#take();
      if (taken !== undefined) return taken;
      await arrival(this.#held.stream);
      ofThisTurn = 0;
    }
  }

  #close(): void {
    if (this.#closed) return;
    this.#closed = true;
    finalizers.unregister(this);
    if (this.#held.session === thread.session) native.dropStream(this.#held.stream);
  }

  /** Also for generators of another copy of this package in the same thread, as test runners make them. */
  static [Symbol.hasInstance](value: unknown): value is ObjectRefGenerator<any> {
    return typeof value === 'object' && value !== null && (#held in value || STREAM in value);
  }

  static {
    makeStream = (completed, site) => new ObjectRefGenerator(CREATE, completed, site);
    Object.defineProperty(ObjectRefGenerator.prototype, STREAM, { value: true });
  }
}

/** Hexadecimal digits of a task's id. */
const TASK_DIGITS = 48;

/** Waits for the next item of a stream; in a task that is cancelled meanwhile, no longer. */
function arrival(stream: number): Promise<void> {
  const task = taskSignal();
  const wait = translated(() => native.waitItem(stream));
  if (wait < 0) return Promise.resolve();
  return new Promise((resolve, reject) => {
    const end = () => {
      task?.removeEventListener('abort', abort);
      endWait(wait);
    };
    const abort = () => {
      end();
      reject(task?.reason);
    };
    // What the code of a cancelled task does about that may wait again.
    if (task?.aborted === false) task.addEventListener('abort', abort);
    whenOver(wait, () => {
      end();
      resolve();
    });
  });
}
