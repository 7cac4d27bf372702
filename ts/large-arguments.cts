/** Large arguments by value: each call stores them anew, which a program that passes the same one again should know. */
import type { Encoded } from './values/index.cjs';

/** Below this many bytes a copy within the message costs next to nothing. */
const LARGE = 100 * 1024;

/** Large arguments that were passed by value before. */
const passed = new WeakSet<object>();
/** Places in the program that were told. */
const told = new Set<string>();
/** Not every place of a program that is made of generated code. */
const MOST_PLACES = 100;

function sizeOf({ header, buffers }: Encoded): number {
  return buffers.reduce((sum, { byteLength }) => sum + byteLength, header.byteLength);
}

/**
 * Notes the arguments of a call, encoded by value. Warns once for each place in the program that passes the same large
 * object again.
 */
export function noteArguments(
  name: string,
  args: readonly unknown[],
  encoded: Encoded,
  site: { stack?: string },
): void {
  const size = sizeOf(encoded);
  if (size < LARGE || told.size >= MOST_PLACES) return;
  for (const [index, value] of args.entries()) {
    if (typeof value !== 'object' || value === null) continue;
    if (!passed.has(value)) {
      passed.add(value);
      continue;
    }
    const place = (site.stack ?? '').split('\n')[1]?.trim() ?? '';
    if (told.has(place)) return;
    told.add(place);
    process.emitWarning(
      `argument ${index} of ${name}() was passed by value before, and is stored anew with each call: the arguments take ${size} bytes`,
      {
        type: 'HeliostatWarning',
        code: 'LARGE_ARGUMENT',
        detail: `${place}\nStore it once and pass the reference: const ref = put(value); fn.remote(ref).`,
      },
    );
    return;
  }
}
