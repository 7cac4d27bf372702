import { types } from 'node:util';
import test from 'ava';
import fc from 'fast-check';
import { build, dataGraphs, type Graph, mixedGraphs } from './support/graphs.js';
import { roundTrip } from './support/peer.js';
import { difference } from './support/same.js';

/** Cases in all: `HELIOSTAT_VALUE_CASES=100000` takes a minute, a million is the long run. `HELIOSTAT_VALUE_SEED` repeats one. */
const { HELIOSTAT_VALUE_CASES: ASKED = 500, HELIOSTAT_VALUE_SEED: SEED } = process.env;
const CASES = Number(ASKED);
/** Each part is a test of its own, so that a long run is seen to go on. */
const PARTS = 10;
const WATCHDOG_MS = 100_000;
const MIXED = 0.05;

/** Everything that can be got at from a value. */
function reachable(root: unknown): Set<unknown> {
  const found = new Set<unknown>();
  const next = [root];
  for (let at = next.pop(); next.length > 0 || at !== undefined; at = next.pop()) {
    if (typeof at !== 'object' || at === null || found.has(at)) continue;
    found.add(at);
    // The state of these shows nowhere else, and asking one for more could run its code.
    if (ArrayBuffer.isView(at)) continue;
    if (types.isMap(at)) next.push(...[...Map.prototype.entries.call(at)].flat(1));
    if (types.isSet(at)) next.push(...Set.prototype.values.call(at));
    for (const key of Reflect.ownKeys(at)) {
      const held: unknown = Object.getOwnPropertyDescriptor(at, key)?.value;
      if (typeof held === 'object' && held !== null) next.push(held);
    }
  }
  return found;
}

/** A value comes back the same in every respect, or is refused with the typed error because it holds what cannot be sent. */
function survives(graph: Graph): void {
  const { root, locals } = build(graph);
  const all = reachable(root);
  const sendable = [...locals].every((local) => !all.has(local));
  let back: unknown;
  try {
    back = roundTrip(root);
  } catch (error) {
    if ((error as { code?: string }).code !== 'SERIALIZATION') throw error;
    if (sendable) throw new Error('was refused although everything in it can be sent', { cause: error });
    return;
  }
  if (!sendable) throw new Error('was sent although it holds what cannot be sent');
  const found = difference(root, back);
  if (found !== undefined) throw new Error(found);
}

for (let part = 1; part <= PARTS; part++) {
  test.serial(`random values come back the same, or are refused: part ${part} of ${PARTS}`, (t) => {
    const seed = SEED === undefined ? undefined : Number(SEED) + part;
    const runs = Math.ceil(CASES / PARTS);
    // A watchdog: what takes so long, shrinking included, fails with the values met so far.
    const plugins = [fc.interruptAfterTimeLimit(WATCHDOG_MS, { failOnInterrupt: true })];
    const options = seed === undefined ? { plugins } : { plugins, seed };
    fc.assert(fc.property(dataGraphs, survives), { ...options, numRuns: Math.ceil(runs * (1 - MIXED)) });
    fc.assert(fc.property(mixedGraphs, survives), { ...options, numRuns: Math.ceil(runs * MIXED) });
    t.pass();
  });
}
