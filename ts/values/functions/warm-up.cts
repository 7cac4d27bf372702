/** Pays the one-off costs of the first capture at a time when nobody waits. */
import { analyse } from './analysis.cjs';
import './function-writer.cjs';
import { endInspection, inspectInternals, knownScripts, scriptFacts } from './inspector.cjs';
import { prepareLexer, scriptById } from './scripts.cjs';

/** Programs have at most a few dozen files of their own; bundles and loaders may have thousands of scripts. */
const MOST_SCRIPTS = 200;

/** Reads a script that a capture may want; one that was collected since it was announced, none will. */
function readAhead(id: string): void {
  try {
    scriptById(id);
  } catch {
    // Whoever does want it is told why it cannot be read.
  }
}

/** Loads the parsers, connects to the inspector, and reads the program's own scripts. */
export function warmUp(): void {
  prepareLexer();
  analyse('({ a, b: [c] = [] }, ...d) => { for (const e of d) { a?.(c, e); } return c ? [...d] : { b }; }');
  try {
    const { location } = inspectInternals(warmUp);
    if (location !== undefined) scriptFacts(location.scriptId);
    const own = knownScripts().filter(({ url }) => /^(file:|\/)/.test(url) && !url.includes('/node_modules/'));
    for (const { id } of own.slice(0, MOST_SCRIPTS)) readAhead(id);
  } catch {
    // Where the inspector is denied, the first function that is sent says so.
  } finally {
    endInspection();
  }
}
