/** Checks of what users pass, with errors that say which option and what would be right. */

/** A plain options object, or undefined. */
export function options(value: unknown, name: string): void {
  if (value !== undefined && (typeof value !== 'object' || value === null)) {
    throw new TypeError(`${name} must be an object, got ${describe(value)}`);
  }
}

/** A number within bounds, or undefined. */
export function number(
  value: unknown,
  name: string,
  bounds: { min?: number; max?: number; integer?: boolean; finite?: boolean } = {},
): void {
  if (value === undefined) return;
  if (typeof value !== 'number') throw new TypeError(`${name} must be a number, got ${describe(value)}`);
  const { min = Number.NEGATIVE_INFINITY, max = Number.POSITIVE_INFINITY, integer = false, finite = false } = bounds;
  const fits =
    value >= min && value <= max && (!integer || Number.isInteger(value)) && (!finite || Number.isFinite(value));
  if (!fits) {
    const kind = integer ? 'an integer' : 'a number';
    const range = max === Number.POSITIVE_INFINITY ? `of at least ${min}` : `from ${min} to ${max}`;
    throw new RangeError(`${name} must be ${kind} ${range}, got ${value}`);
  }
}

/** Milliseconds to wait, or undefined. */
export function timeout(value: unknown, name = 'timeoutMs'): void {
  number(value, name, { min: 0 });
}

/** A boolean, or undefined. */
export function boolean(value: unknown, name: string): void {
  if (value !== undefined && typeof value !== 'boolean')
    throw new TypeError(`${name} must be a boolean, got ${describe(value)}`);
}

/** A string, or undefined. */
export function string(value: unknown, name: string): void {
  if (value !== undefined && typeof value !== 'string')
    throw new TypeError(`${name} must be a string, got ${describe(value)}`);
}

/** An AbortSignal, of any realm, or undefined. */
export function signal(value: unknown, name = 'signal'): void {
  if (value === undefined) return;
  if (
    typeof value !== 'object' ||
    value === null ||
    typeof (value as AbortSignal).addEventListener !== 'function' ||
    !('aborted' in value)
  ) {
    throw new TypeError(`${name} must be an AbortSignal, got ${describe(value)}`);
  }
}

/** Amounts by name, or undefined. */
export function amounts(value: unknown, name: string): void {
  options(value, name);
  for (const [key, amount] of Object.entries(value ?? {}))
    number(amount ?? Number.NaN, `${name}.${key}`, { min: 0, finite: true });
}

/** A value as it stands in an error message. */
export function describe(value: unknown): string {
  if (value === null) return 'null';
  if (typeof value === 'string') return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value);
  if (typeof value === 'object')
    return Array.isArray(value) ? 'an array' : `an instance of ${value.constructor?.name ?? 'null'}`;
  if (typeof value === 'function') return `the function ${value.name || '(anonymous)'}`;
  return String(value);
}

/** Whether a promise would take a value for another promise. */
export function isThenable(value: unknown): boolean {
  if ((typeof value !== 'object' || value === null) && typeof value !== 'function') return false;
  try {
    return typeof (value as { then?: unknown }).then === 'function';
  } catch {
    return false; // a getter that throws is the codec's to refuse
  }
}
