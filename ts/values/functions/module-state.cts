/**
 * Variables of the user's modules, kept by this process for the functions that use them: state lasts between calls.
 * A variable that arrives with other content is another copy.
 */

/** Copies of one variable that are kept: a program that changes a module between calls must not fill the worker. */
const MOST_COPIES = 4;

const modules = new Map<string, Map<string, object>>();

/** The copy of a module's variable that began with some content. */
export function stateOf(
  module: string,
  name: string,
  fingerprint: string,
): { kept: object | undefined; keep: (state: object) => void } {
  const key = `${module}:${name}`;
  const copies = modules.get(key);
  return {
    kept: copies?.get(fingerprint),
    keep(state) {
      let kept = modules.get(key);
      if (kept === undefined) {
        kept = new Map();
        modules.set(key, kept);
      }
      kept.set(fingerprint, state);
      if (kept.size > MOST_COPIES) kept.delete(kept.keys().next().value as string);
    },
  };
}
