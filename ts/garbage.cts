/** A garbage collection on demand, for a thread that needs room in the store before its next turn. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

let collect: (() => void) | undefined;

/** Collects what this thread does not reach any more. */
export function collectGarbage(): void {
  if (collect === undefined) {
    // The function exists in contexts that are made while the flag is set.
    setFlagsFromString('--expose-gc');
    collect = runInNewContext('gc') as () => void;
    setFlagsFromString('--no-expose-gc');
  }
  collect();
}
