/** Remote functions: calls become tasks, their results references. */
import { cancelOnAbort } from './cancel.cjs';
import * as check from './check.cjs';
import { parentExecution } from './context.cjs';
import { notYet } from './errors.cjs';
import { isGenerator } from './generators.cjs';
import { noteArguments } from './large-arguments.cjs';
import { native } from './native.cjs';
import { handleOf, makeRef, ObjectRef, session } from './object-ref.cjs';
import { Finalizers } from './realm.cjs';
import { withRoom } from './room.cjs';
import { current } from './runtime.cjs';
import { prepareEnv, settled } from './runtime-env.cjs';
import { callSite } from './sites.cjs';
import { makeStream, type ObjectRefGenerator } from './streams.cjs';
import { bufferedOf, checkOptions, flagsOf, needsOf, type Options, timeoutOf } from './task-options.cjs';
import { contentHash, withParts, writeSmallCall } from './transfer.cjs';
import type { ActorOptions, RemoteClass, RemoteFunction, TaskOptions } from './types.cjs';
import { encode, warnOfLarge } from './values/index.cjs';

const DEFAULT_RETRIES = 3;

type AnyFunction = (...args: any[]) => unknown;

/** The function as it was captured at the first call of a session. */
interface Captured {
  hash: Uint8Array;
  session: number;
}

/** Functions are held by those that may call them; what a function captured goes with the last. */
const held = new Finalizers<Captured>(({ hash, session: owner }) => {
  if (owner === session.current) native.dropFunction(hash);
});

/** The environment as it was packed at the first call of a session. */
interface Prepared {
  id: string;
  session: number;
}

/** What the options of one remote function have in common. */
interface Shared<T> {
  value?: T;
}

/** A call as native code knows it. */
interface Call {
  number: number;
  name: string;
  /** The function that it calls, which lives as long as it. */
  captured: Captured;
  /** Whether it gives one value: then small arguments go the short way. */
  single: boolean;
  /** Whether it gives a stream. */
  streams: boolean;
}

const calls = new Finalizers<number>((number) => native.dropCall(number));

/** What remote() gives for a function. Found by this name where a value brings one. */
export class Remote {
  readonly #captured: Shared<Captured>;
  readonly #env: Shared<Prepared>;
  readonly #function: AnyFunction;
  readonly #options: Options;
  #call: Call | undefined;

  constructor(fn: AnyFunction, options: Options, captured: Shared<Captured> = {}, env: Shared<Prepared> = {}) {
    this.#function = fn;
    const { runtimeEnv } = options;
    this.#options = runtimeEnv === undefined ? options : { ...options, runtimeEnv: settled(runtimeEnv) };
    this.#captured = captured;
    this.#env = env;
  }

  remote(...args: unknown[]): ObjectRef | ObjectRef[] | ObjectRefGenerator {
    current();
    const call = this.#prepare();
    const positions: number[] = [];
    const byRef: number[] = [];
    let values = args;
    for (let index = 0; index < args.length; index++) {
      const value = args[index];
      if (!(value instanceof ObjectRef)) continue;
      if (values === args) values = args.slice();
      values[index] = undefined;
      positions.push(index);
      byRef.push(handleOf(value));
    }
    if (call.single) {
      const length = writeSmallCall(values, positions, byRef);
      if (length >= 0) {
        const handle = native.submitSmall(call.number, parentExecution(), length, byRef.length);
        return makeRef(handle, callSite(this.remote));
      }
    }
    const { numReturns, signal } = this.#options;
    const cancelled = signal?.aborted ?? false;
    const site = callSite(this.remote);
    const handles = withRoom(() => {
      const encoded = encode(values);
      noteArguments(call.name, values, encoded, site);
      return withParts(encoded, (...parts) =>
        native.submit(call.number, ...parts, positions, byRef, parentExecution(), cancelled),
      );
    });
    const results = handles.map((handle) => makeRef(handle, site));
    if (signal !== undefined && !cancelled) cancelOnAbort(signal, results[0] as ObjectRef);
    if (call.streams) return makeStream(results[0] as ObjectRef<void>, site);
    return numReturns === undefined ? (results[0] as ObjectRef) : results;
  }

  options(options: Options): Remote {
    checkOptions(options);
    const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
    // The error classes travel with the function.
    const captured = 'retryExceptions' in given ? {} : this.#captured;
    const env = 'runtimeEnv' in given ? {} : this.#env;
    return new Remote(this.#function, { ...this.#options, ...given }, captured, env);
  }

  /** How a remote function travels inside values and with functions that capture it. A signal stays in its process. */
  [Symbol.for('heliostat.serialize')](): [AnyFunction, Options] {
    const { signal: _, ...options } = this.#options;
    return [this.#function, options];
  }

  static [Symbol.for('heliostat.deserialize')]([fn, options]: [AnyFunction, Options]): Remote {
    return new Remote(fn, options);
  }

  /** The call, prepared at the first one of a session. */
  #prepare(): Call {
    const known = this.#call;
    if (known !== undefined && known.captured.session === session.current) return known;
    const captured = this.#capture();
    const options = this.#options;
    const { numReturns, maxRetries = DEFAULT_RETRIES, signal } = options;
    const name = options.name ?? (this.#function.name || 'anonymous');
    const streams = options.streaming ?? isGenerator(this.#function);
    if (streams && numReturns !== undefined)
      throw new TypeError(`numReturns: ${name}() gives a stream of items, which has no number of results known before`);
    const number = native.prepareCall(
      name,
      captured.hash,
      needsOf(options),
      numReturns ?? -1,
      maxRetries,
      timeoutOf(options),
      flagsOf(options),
      this.#prepareEnv(),
      streams ? bufferedOf(options) : 0,
    );
    const single = numReturns === undefined && signal === undefined && !streams;
    const call = { number, name, captured, single, streams };
    calls.register(call, number);
    this.#call = call;
    return call;
  }

  /** Packs the working directory at the first call, as the function is captured then. */
  #prepareEnv(): string {
    const { runtimeEnv } = this.#options;
    if (runtimeEnv === undefined) return '';
    const known = this.#env.value;
    if (known !== undefined && known.session === session.current) return known.id;
    const id = prepareEnv(runtimeEnv);
    this.#env.value = { id, session: session.current };
    return id;
  }

  /** Captures the function at the first call: constants below it in the file exist by then. */
  #capture(): Captured {
    const known = this.#captured.value;
    if (known !== undefined && known.session === session.current) return known;
    const { retryExceptions } = this.#options;
    const hash = withRoom(() => {
      // With the classes in one value, those that the function throws are the same ones in the worker.
      const encoded = encode(Array.isArray(retryExceptions) ? [this.#function, ...retryExceptions] : this.#function);
      const content = contentHash(encoded);
      if (!native.useFunction(content)) {
        withParts(encoded, (...parts) => native.defineFunction(content, ...parts));
        warnOfLarge(this.#function, encoded);
      }
      return content;
    });
    const captured = { hash, session: session.current };
    this.#captured.value = captured;
    held.register(captured, { ...captured });
    return captured;
  }
}

function isClass(value: AnyFunction): boolean {
  return /^class\b/.test(Function.prototype.toString.call(value));
}

/**
 * Makes a function remote: `remote(fn).remote(...args)` runs it in a worker and gives a reference to its result.
 *
 * The function travels by value: captured variables are copied at the first call, imports of packages and builtins are
 * imported again in the worker, the user's own modules travel by value. A generator function gives an
 * {@link ObjectRefGenerator} of its items instead.
 *
 * @example
 * const load = remote(async (url: string) => (await fetch(url)).text(), {
 *   maxRetries: 5, // after crashes of the worker, and after what retryExceptions names
 *   retryExceptions: [TypeError, TaskTimeoutError], // judged in the worker, by instanceof; true: any error, and timeouts
 *   timeoutMs: 10_000, // of each run; the queue does not count
 * });
 * const controller = new AbortController();
 * const ref = load.options({ signal: controller.signal }).remote('https://example.org');
 * controller.abort(); // cancels the task
 */
export function remote<C extends new (...args: any[]) => object>(actorClass: C, options?: ActorOptions): RemoteClass<C>;
export function remote<A extends any[], R>(fn: (...args: A) => R, options?: TaskOptions): RemoteFunction<A, R>;
export function remote(target: unknown, options: Options | ActorOptions = {}): unknown {
  if (typeof target !== 'function')
    throw new TypeError(`remote() takes a function or a class, got ${check.describe(target)}`);
  if (isClass(target as AnyFunction)) return new RemoteActor();
  checkOptions(options as Options);
  return new Remote(target as AnyFunction, options as Options);
}

/** Actors are not there yet: using one says so. */
class RemoteActor {
  remote(): never {
    throw notYet('remote(Class)');
  }

  options(_options: ActorOptions): this {
    return this;
  }
}
