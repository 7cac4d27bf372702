/** How much is measured: HELIOSTAT_QUICK=1 only shows that everything runs, HELIOSTAT_LONG=1 adds what takes minutes. */
export const QUICK = process.env['HELIOSTAT_QUICK'] === '1';
export const LONG = process.env['HELIOSTAT_LONG'] === '1';

/** A count, or what stands for it in a quick run. */
export function count(full: number, quick: number): number {
  return QUICK ? quick : full;
}

/** Fails with what was found where something else was expected. */
export function expect(what: string, found: unknown, expected: unknown): void {
  if (!Object.is(found, expected)) throw new Error(`${what}: found ${String(found)}, expected ${String(expected)}`);
}

/** Collects what is garbage, and lets finalizers run. */
export async function collect(): Promise<void> {
  if (globalThis.gc === undefined) throw new Error('--expose-gc is missing: start it with `npm run bench`');
  for (let i = 0; i < 4; i++) {
    globalThis.gc();
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
