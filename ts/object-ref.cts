/** References: the handles that user programs hold. */
import { inspect, types } from 'node:util';
import { OutOfBandRefError, RefDisposedError } from './errors.cjs';
import { native, type Share, thread } from './native.cjs';
import { Finalizers } from './realm.cjs';
import type { GetOptions } from './types.cjs';

/** What the rest of the package needs of a reference, kept off the public class. */
interface Internals {
  create(handle: number, site: CallSite | undefined): ObjectRef<any>;
  adopt(handle: number): ObjectRef<any>;
  handle(ref: ObjectRef<any>): number;
  site(ref: ObjectRef<any>): CallSite | undefined;
  track(ref: ObjectRef<any>): void;
  isOwn(ref: object): boolean;
}

/** Where in the user's program an object was made; the text is made only when it is read. */
export interface CallSite {
  stack?: string;
}

/** A session's references end with it: a handle of an earlier one must never be taken for one of the present. */
export const session = {
  get current(): number {
    return thread.session;
  },
};

/**
 * The registry of a session. Of a wrapper's end it is told by the bare handle, which native code keeps from being used
 * again until then, disposed of or not: the first wrapper of a handle needs nothing beside itself. Further wrappers of
 * one handle, as values bring them, each have a {@link Share}. What concerns an ended session concerns nobody.
 */
let finalizers = registryOf(-1);
let registered = -1;

function registryOf(owner: number): FinalizationRegistry<number | Share> {
  return new Finalizers<number | Share>((held) => {
    if (owner !== thread.session) return;
    if (typeof held !== 'number') {
      drop(held);
      return;
    }
    if (tracked.get(held) === null) tracked.delete(held);
    if (!native.collected(held)) sites.delete(held);
  });
}

/** Lets go of a further wrapper's part in a handle, once. */
function drop(share: Share): void {
  if (share.dropped) return;
  share.dropped = true;
  if (tracked.get(share.handle) === share) {
    tracked.delete(share.handle);
    native.untrackRef(share.handle);
  }
  native.release(share.handle);
}

/**
 * References to objects in the store. Native code watches them weakly as well, so that those that are garbage can be let
 * go of without a turn of the event loop, which finalizers need.
 */
const { tracked } = thread;

/** Lets go of references that were collected. Returns how many. */
export function sweepRefs(): number {
  const dead = native.sweepRefs();
  for (const handle of dead) {
    const share = tracked.get(handle);
    tracked.delete(handle);
    if (share === null) {
      if (!native.dispose(handle)) sites.delete(handle);
    } else if (share !== undefined) drop(share);
  }
  return dead.length;
}

/**
 * Where the objects of handles were made, while a reference to them is alive. Held weakly: the frames of a call site that
 * nobody has read yet hold the functions of these frames, and what those can see, the reference itself among it.
 */
const sites = new Map<number, WeakRef<CallSite>>();

/** Where the object of a handle was made, if this thread made it. */
export function siteOfHandle(handle: number): CallSite | undefined {
  return sites.get(handle)?.deref();
}

/** Ends the references of this session; how they are called stays known. */
export function endSession(): void {
  thread.session += 1;
  tracked.clear();
  sites.clear();
}

let getter: (ref: ObjectRef<any>, options?: GetOptions) => Promise<any>;
let internals: Internals;

/** Breaks the circle between references and reading them. */
export function setGetter(get: typeof getter): void {
  getter = get;
}

const CREATE = Symbol('create');
/** By this, copies of this package in one thread take each other's references for their own. */
const INTERNALS = Symbol.for('heliostat.ref');

/**
 * A property that guards what cannot be copied: structuredClone reads own enumerable properties, to the bottom, and so
 * fails instead of giving an empty object.
 */
export function guardOf(what: string): object {
  return Object.freeze({
    get value(): never {
      throw outOfBand(what, 'structuredClone, or read property by property');
    },
  });
}

const WHAT = 'an ObjectRef';
const GUARD = guardOf(WHAT);

/** Ids that were read, for when the session has ended. */
const ids = new WeakMap<ObjectRef<any>, string>();

/** The error for a way to copy references that does not count them. */
export function outOfBand(what: string, by: string): OutOfBandRefError {
  const isRef = what === WHAT;
  const why = isRef ? 'the copy would not be counted, and its object could be freed' : 'it has one consumer';
  return new OutOfBandRefError(`${what} cannot be copied by ${by}: ${why}`, {
    hint: isRef
      ? 'pass the reference to a task, put it inside a value, or get its value first'
      : 'take its items here, and pass on their references or values',
  });
}

/**
 * A pointer to an immutable remote object, and a future of its value.
 *
 * Deliberately not thenable: an async function may return one, and Promise.all leaves it alone.
 */
export class ObjectRef<T = unknown> implements Disposable {
  /** Below 0 after disposal: -1 less what it was. */
  #handle: number;
  readonly #session: number;
  readonly #site: CallSite | undefined;
  readonly #share: Share | null;
  /** @internal */
  readonly ObjectRef = GUARD;
  /** Keeps T in the type. */
  declare private readonly __type: T;

  private constructor(token: symbol, handle: number, site: CallSite | undefined, share: Share | null) {
    if (token !== CREATE) throw new TypeError('an ObjectRef comes from put() or remote(), not from its constructor');
    const { session: now } = thread;
    if (registered !== now) {
      registered = now;
      finalizers = registryOf(now);
    }
    this.#handle = handle;
    this.#session = now;
    this.#site = site;
    this.#share = share;
    if (site !== undefined) sites.set(handle, new WeakRef(site));
    else if (share === null && sites.size > 0) sites.delete(handle);
    finalizers.register(this, share ?? handle);
  }

  /** 56 hexadecimal digits: the task's id, then the object's index. */
  get id(): string {
    const id = this.#name();
    if (id === undefined) throw ended();
    return id;
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
    const handle = this.#handle;
    if (handle < 0) return;
    this.#handle = -1 - handle;
    if (this.#session !== thread.session) return;
    if (this.#share !== null) {
      // Its name stays readable, also when the handle has become another object's.
      if (!ids.has(this)) ids.set(this, native.refId(handle));
      drop(this.#share);
      return;
    }
    if (tracked.get(handle) === null) {
      tracked.delete(handle);
      native.untrackRef(handle);
    }
    if (!native.dispose(handle)) sites.delete(handle);
  }

  toString(): string {
    const id = this.#name();
    return id === undefined ? 'ObjectRef(of a session that has ended)' : `ObjectRef(${id})`;
  }

  toJSON(): never {
    throw outOfBand(WHAT, 'JSON.stringify');
  }

  [inspect.custom](): string {
    return this.toString();
  }

  /** The id, which stays readable after disposal, in messages about it for example. */
  #name(): string | undefined {
    let id = ids.get(this);
    if (id === undefined && this.#session === thread.session) {
      id = native.refId(this.#handle < 0 ? -1 - this.#handle : this.#handle);
      ids.set(this, id);
    }
    return id;
  }

  #live(): number {
    if (this.#handle < 0) {
      throw new RefDisposedError(`${this} was disposed`, {
        hint: 'the block of its `using`, or a call of [Symbol.dispose](), ended before this use',
      });
    }
    if (this.#session !== thread.session) throw ended();
    return this.#handle;
  }

  /** Also for references of another copy of this package in the same thread, as test runners make them. */
  static [Symbol.hasInstance](value: unknown): value is ObjectRef<any> {
    if (typeof value !== 'object' || value === null) return false;
    if (#handle in value || Object.prototype.isPrototypeOf.call(ObjectRef.prototype, value)) return true;
    return thread.copies > 1 && foreignInternals(value) !== undefined;
  }

  static {
    internals = {
      create: (handle, site) => new ObjectRef(CREATE, handle, site, null),
      adopt: (handle) => new ObjectRef(CREATE, handle, undefined, { handle, dropped: false }),
      handle: (ref) => ref.#live(),
      site: (ref) => ref.#site,
      track: (ref) => {
        const handle = ref.#handle;
        if (handle < 0 || tracked.has(handle)) return;
        tracked.set(handle, ref.#share);
        native.trackRef(handle, ref);
      },
      isOwn: (ref) => #handle in ref,
    };
    Object.defineProperty(ObjectRef.prototype, INTERNALS, { value: internals });
  }
}

function foreignInternals(value: object): Internals | undefined {
  if (types.isProxy(value)) return undefined;
  const prototype = Object.getPrototypeOf(value) as { [INTERNALS]?: Internals } | null;
  const found = prototype?.[INTERNALS];
  return found?.isOwn(value) === true ? found : undefined;
}

/** The part of the copy that made a reference. */
function internalsOf(ref: ObjectRef<any>): Internals {
  return internals.isOwn(ref) ? internals : (foreignInternals(ref) ?? internals);
}

let ended: () => Error;

/** The error of a use of what belongs to an ended session. */
export function endedSession(): Error {
  return ended();
}

/** How a use of an ended session's reference fails. */
export function setEnded(make: () => Error): void {
  ended = make;
}

/** A reference for a handle that native code gave before: one more wrapper of it, perhaps the only one left. */
export function adoptRef(handle: number): ObjectRef<any> {
  return internals.adopt(handle);
}

/** A reference for a handle that native code just made; it owns the handle from now on. */
export function makeRef(handle: number, site?: CallSite): ObjectRef<any> {
  return internals.create(handle, site);
}

/** The native handle; throws when the reference was disposed or its session has ended. */
export function handleOf(ref: ObjectRef<any>): number {
  return internalsOf(ref).handle(ref);
}

/** Notes that the reference's object takes room in the store. */
export function trackRef(ref: ObjectRef<any>): void {
  internalsOf(ref).track(ref);
}

/** Where it was made: put, or its task submitted. */
export function siteOf(ref: ObjectRef<any>): CallSite | undefined {
  return internalsOf(ref).site(ref);
}
