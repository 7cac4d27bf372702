/** What a task may be told: checks, and what native code needs of it. */
import * as check from './check.cjs';
import { notYet, TaskTimeoutError } from './errors.cjs';
import { checkRuntimeEnv } from './runtime-env.cjs';
import type { TaskOptions } from './types.cjs';

export type Options = TaskOptions & { numReturns?: number };

/** Options that later versions bring, refused rather than ignored. */
const LATER = ['schedulingStrategy'] as const;

const KNOWN = new Set<string>([
  ...LATER,
  'name',
  'streaming',
  'bufferedItems',
  'maxRetries',
  'retryExceptions',
  'timeoutMs',
  'signal',
  'numReturns',
  'numCpus',
  'numGpus',
  'memory',
  'resources',
  'runtimeEnv',
]);

/** Throws TypeError or RangeError for what cannot be meant. */
export function checkOptions(options: Options): void {
  check.options(options, "the task's options");
  for (const name of Object.keys(options)) {
    if (!KNOWN.has(name)) throw new TypeError(`tasks have no option ${name}; they have ${[...KNOWN].join(', ')}`);
  }
  check.string(options.name, 'name');
  check.boolean(options.streaming, 'streaming');
  check.number(options.bufferedItems, 'bufferedItems', { min: 1, integer: true });
  check.number(options.maxRetries, 'maxRetries', { min: -1, integer: true });
  checkRetryExceptions(options.retryExceptions);
  check.timeout(options.timeoutMs);
  check.signal(options.signal);
  check.number(options.numReturns, 'numReturns', { min: 1, max: 1_000_000, integer: true });
  check.number(options.numCpus, 'numCpus', { min: 0, finite: true });
  check.number(options.numGpus, 'numGpus', { min: 0, finite: true });
  check.number(options.memory, 'memory', { min: 0, finite: true });
  check.amounts(options.resources, 'resources');
  checkRuntimeEnv(options.runtimeEnv);
  for (const name of LATER) {
    const value = options[name];
    if (value !== undefined && value !== 'default') throw notYet(`the task option ${name}`);
  }
}

function checkRetryExceptions(value: unknown): void {
  if (value === undefined || typeof value === 'boolean') return;
  if (!Array.isArray(value))
    throw new TypeError(`retryExceptions must be a boolean or a list of error classes, got ${check.describe(value)}`);
  for (const [index, type] of value.entries()) {
    if (typeof type !== 'function' || typeof type.prototype !== 'object')
      throw new TypeError(`retryExceptions[${index}] must be an error class, got ${check.describe(type)}`);
  }
}

/** Resources as native code takes them. */
export function needsOf(options: Options): (string | number)[] {
  const needs: (string | number)[] = ['CPU', options.numCpus ?? 1];
  if (options.numGpus) needs.push('GPU', options.numGpus);
  if (options.memory) needs.push('memory', options.memory);
  for (const [name, amount] of Object.entries(options.resources ?? {})) needs.push(name, amount);
  return needs;
}

const AFTER_ERRORS = 1;
const AFTER_TIMEOUTS = 2;

/** Which ends of a run are tried again, as native code takes it. A timeout is one of them only where the option says so. */
export function flagsOf({ retryExceptions: again = false }: Options): number {
  const isTimeout = (type: { prototype: unknown }) =>
    type === TaskTimeoutError ||
    Object.prototype.isPrototypeOf.call(type.prototype as object, TaskTimeoutError.prototype);
  const errors = Array.isArray(again) ? again.length > 0 : again;
  const timeouts = Array.isArray(again) ? again.some(isTimeout) : again;
  return (errors ? AFTER_ERRORS : 0) | (timeouts ? AFTER_TIMEOUTS : 0);
}

const DEFAULT_BUFFERED = 16;
const MOST_BUFFERED = 1_000_000;

/** Items of a stream that may be made before they are taken. */
export function bufferedOf({ bufferedItems = DEFAULT_BUFFERED }: Options): number {
  return Math.min(bufferedItems, MOST_BUFFERED);
}

/** Milliseconds that a run may take, or -1. */
export function timeoutOf({ timeoutMs }: Options): number {
  return timeoutMs === undefined || timeoutMs > Number.MAX_SAFE_INTEGER ? -1 : Math.ceil(timeoutMs);
}
