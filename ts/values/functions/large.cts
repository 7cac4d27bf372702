/** Functions that take much data along, where a reference would do. */
import { hooks } from '../hooks.cjs';
import { Capture } from './capture.cjs';

/** A variable of fewer bytes is not worth naming. */
const NAMED = 64 << 10;
/** What one element of a list, a Map or a Set takes at least. */
const ELEMENT = 8;
const warned = new Set<string>();
/** Programs that make functions without end must not fill memory with their texts. */
const MOST_WARNINGS = 100;

/** Warns, once for each text, of a function whose message has many bytes. */
export function warnOfLarge(fn: CallableFunction, bytes: number): void {
  const text = Function.prototype.toString.call(fn);
  if (warned.has(text) || warned.size >= MOST_WARNINGS) return;
  warned.add(text);
  const largest = largestVariable(fn);
  const most = largest === undefined ? '' : `, most of it in ${largest}`;
  const mebibytes = (bytes / (1 << 20)).toFixed(1);
  process.emitWarning(`${fn.name || 'a remote function'} takes ${mebibytes} MiB of captured data along${most}`, {
    type: 'HeliostatWarning',
    code: 'LARGE_CAPTURE',
    detail: `Every worker makes its own copy. Put it once and pass the reference: const ref = put(${largest ?? 'data'}); task.remote(ref).`,
  });
}

/** The captured variable that holds most, as far as that shows without reading it. */
function largestVariable(fn: CallableFunction): string | undefined {
  const capture = new Capture(hooks().packageName);
  let largest: string | undefined;
  let most = NAMED;
  try {
    const template = capture.templateOf(fn);
    for (const variable of template?.variables ?? []) {
      const captured = capture.captured(fn, template as NonNullable<typeof template>, variable, undefined);
      const value =
        captured.how === 'cell' ? captured.cell.value : captured.how === 'self' ? undefined : captured.value;
      const size = sizeOf(value);
      if (size > most) [largest, most] = [variable.name, size];
    }
  } catch {
    // The warning says the same without the name.
  } finally {
    capture.end();
  }
  return largest;
}

function sizeOf(value: unknown): number {
  if (typeof value === 'string') return value.length;
  if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer || value instanceof SharedArrayBuffer)
    return value.byteLength;
  if (Array.isArray(value)) return value.length * ELEMENT;
  if (value instanceof Map || value instanceof Set) return value.size * ELEMENT;
  return 0;
}
