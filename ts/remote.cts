/** Remote functions: calls become tasks, their results references. */
import * as check from './check.cjs';
import { parentExecution } from './context.cjs';
import { notYet } from './errors.cjs';
import { native } from './native.cjs';
import { type CallSite, handleOf, makeRef, ObjectRef, session } from './object-ref.cjs';
import { withRoom } from './room.cjs';
import { current } from './runtime.cjs';
import { contentHash, withEncoded, withParts } from './transfer.cjs';
import type { ActorOptions, ObjectRefGenerator, RemoteClass, RemoteFunction, TaskOptions } from './types.cjs';
import { encode } from './values/index.cjs';

const DEFAULT_RETRIES = 3;
/** Frames kept of each call, enough to name the user's line. */
const SITE_FRAMES = 8;

/** Options that later versions bring, refused rather than ignored. */
const LATER = ['schedulingStrategy', 'runtimeEnv', 'retryExceptions', 'timeoutMs', 'signal', 'bufferedItems'] as const;

type AnyFunction = (...args: any[]) => unknown;
type Options = TaskOptions & { numReturns?: number };

const KNOWN = new Set<string>([
  ...LATER,
  'name',
  'streaming',
  'maxRetries',
  'numReturns',
  'numCpus',
  'numGpus',
  'memory',
  'resources',
]);

function checkOptions(options: Options): void {
  check.options(options, "the task's options");
  for (const name of Object.keys(options)) {
    if (!KNOWN.has(name)) throw new TypeError(`tasks have no option ${name}; they have ${[...KNOWN].join(', ')}`);
  }
  check.string(options.name, 'name');
  check.boolean(options.streaming, 'streaming');
  check.number(options.maxRetries, 'maxRetries', { min: -1, integer: true });
  check.number(options.numReturns, 'numReturns', { min: 1, max: 1_000_000, integer: true });
  check.number(options.numCpus, 'numCpus', { min: 0, finite: true });
  check.number(options.numGpus, 'numGpus', { min: 0, finite: true });
  check.number(options.memory, 'memory', { min: 0, finite: true });
  check.amounts(options.resources, 'resources');
  for (const name of LATER) {
    const value = options[name];
    if (value !== undefined && value !== false && value !== 'default') throw notYet(`the task option ${name}`);
  }
  if (options.streaming === true) throw notYet('the task option streaming');
}

function needsOf(options: Options): (string | number)[] {
  const needs: (string | number)[] = ['CPU', options.numCpus ?? 1];
  if (options.numGpus) needs.push('GPU', options.numGpus);
  if (options.memory) needs.push('memory', options.memory);
  for (const [name, amount] of Object.entries(options.resources ?? {})) needs.push(name, amount);
  return needs;
}

/** The function as it was captured at the first call of a session. */
interface Captured {
  hash: Uint8Array;
  session: number;
}

/** Functions are held by those that may call them; what a function captured goes with the last. */
const held = new FinalizationRegistry<Captured>(({ hash, session: owner }) => {
  if (owner === session.current) native.dropFunction(hash);
});

/** What remote() gives for a function. Found by this name where a value brings one. */
export class Remote {
  readonly #captured: { value?: Captured };
  readonly #function: AnyFunction;
  readonly #options: Options;
  readonly #name: string;
  readonly #needs: (string | number)[];

  constructor(fn: AnyFunction, options: Options, captured: { value?: Captured } = {}) {
    this.#function = fn;
    this.#options = options;
    this.#captured = captured;
    this.#name = options.name ?? (fn.name || 'anonymous');
    this.#needs = needsOf(options);
  }

  remote(...args: unknown[]): ObjectRef | ObjectRef[] {
    current();
    const hash = this.#capture();
    const positions: number[] = [];
    const byRef: number[] = [];
    const values = args.map((value, index) => {
      if (!(value instanceof ObjectRef)) return value;
      positions.push(index);
      byRef.push(handleOf(value));
      return undefined;
    });
    const { numReturns, maxRetries = DEFAULT_RETRIES } = this.#options;
    const handles = withRoom(() =>
      withEncoded(values, (header, length, buffers, refs) =>
        native.submit(
          this.#name,
          hash,
          header,
          length,
          buffers,
          refs,
          positions,
          byRef,
          numReturns ?? -1,
          this.#needs,
          maxRetries,
          parentExecution(),
        ),
      ),
    );
    const site = callSite(this.remote);
    const results = handles.map((handle) => makeRef(handle, site));
    return numReturns === undefined ? (results[0] as ObjectRef) : results;
  }

  options(options: Options): Remote {
    checkOptions(options);
    const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
    return new Remote(this.#function, { ...this.#options, ...given }, this.#captured);
  }

  /** How a remote function travels inside values and with functions that capture it. */
  [Symbol.for('heliostat.serialize')](): [AnyFunction, Options] {
    return [this.#function, this.#options];
  }

  static [Symbol.for('heliostat.deserialize')]([fn, options]: [AnyFunction, Options]): Remote {
    return new Remote(fn, options);
  }

  /** Captures the function at the first call: constants below it in the file exist by then. */
  #capture(): Uint8Array {
    const known = this.#captured.value;
    if (known !== undefined && known.session === session.current) return known.hash;
    const hash = withRoom(() => {
      const encoded = encode(this.#function);
      const content = contentHash(encoded);
      if (!native.useFunction(content)) withParts(encoded, (...parts) => native.defineFunction(content, ...parts));
      return content;
    });
    const captured = { hash, session: session.current };
    this.#captured.value = captured;
    held.register(captured, { ...captured });
    return hash;
  }
}

function callSite(below: AnyFunction): CallSite {
  const site: CallSite = {};
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = SITE_FRAMES;
  Error.captureStackTrace(site, below);
  Error.stackTraceLimit = limit;
  return site;
}

function isClass(value: AnyFunction): boolean {
  return /^class\b/.test(Function.prototype.toString.call(value));
}

function isGenerator(value: AnyFunction): boolean {
  const tag = Object.prototype.toString.call(value);
  return tag === '[object GeneratorFunction]' || tag === '[object AsyncGeneratorFunction]';
}

/**
 * Makes a function remote: `remote(fn).remote(...args)` runs it in a worker and gives a reference to its result.
 *
 * The function travels by value: captured variables are copied at the first call, imports of packages and builtins are
 * imported again in the worker, the user's own modules travel by value.
 */
export function remote<C extends new (...args: any[]) => object>(actorClass: C, options?: ActorOptions): RemoteClass<C>;
export function remote<A extends any[], R>(fn: (...args: A) => R, options?: TaskOptions): RemoteFunction<A, R>;
export function remote(target: unknown, options: Options | ActorOptions = {}): unknown {
  if (typeof target !== 'function')
    throw new TypeError(`remote() takes a function or a class, got ${check.describe(target)}`);
  if (isClass(target as AnyFunction)) return new RemoteActor();
  checkOptions(options as Options);
  if (isGenerator(target as AnyFunction) && (options as Options).streaming !== false) return new RemoteStream();
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

/** Streams are not there yet: using one says so. */
class RemoteStream {
  remote(): never {
    throw notYet('remote() of a generator function');
  }

  options(_options: TaskOptions): this {
    return this;
  }
}

/** Cancels a task. */
export function cancel(
  _ref: ObjectRef | ObjectRefGenerator<any>,
  _options?: { force?: boolean; recursive?: boolean },
): Promise<void> {
  return Promise.reject(notYet('cancel()'));
}
