/**
 * Random values. The seed is fixed, so that every run of the tests sees the same cases; other runs look further:
 *
 *     HELIOSTAT_VALUE_SEED=random HELIOSTAT_VALUE_CASES=1000000 npx ava __test__/values/random.spec.ts
 *     HELIOSTAT_VALUE_SEED=7 HELIOSTAT_VALUE_CASE=3:1234 npx ava …   # part 3 alone, whose case 1234 is printed first
 */
import { inspect, types } from 'node:util';
import { Worker } from 'node:worker_threads';
import test from 'ava';
import fc from 'fast-check';
import { useHiddenClasses } from '../../dist/values/hidden-classes.cjs';
import { build, dataGraphs, type Graph, mixedGraphs } from './support/graphs.js';
import { roundTrip } from './support/peer.js';
import { difference, keysOf } from './support/same.js';

const { HELIOSTAT_VALUE_CASES, HELIOSTAT_VALUE_SEED, HELIOSTAT_VALUE_CASE } = process.env;
const CASES = Number(HELIOSTAT_VALUE_CASES ?? 100_000);
const SEED = HELIOSTAT_VALUE_SEED === 'random' ? Date.now() & 0x7fffffff : Number(HELIOSTAT_VALUE_SEED ?? 1);
const [ONLY_PART, PRINTED] = (HELIOSTAT_VALUE_CASE ?? '0:0').split(':').map(Number);
/** Each part is a test of its own, so that a long run is seen to go on. */
const PARTS = 10;
/** The share of cases with instances of classes, for which code travels along, and with what cannot be sent. */
const MIXED = 0.05;
/** A case that takes longer hangs. */
const HANGS_AFTER_MS = 60_000;

/** Part and case that are under way, for the thread that watches. */
const underWay = new Int32Array(new SharedArrayBuffer(8));

/** The event loop of a process that hangs fires no timer: another thread names the case, and ends the process. */
const WATCHDOG = `
  const { workerData: { underWay, seed, cases, limit } } = require('node:worker_threads');
  let last = '';
  for (let quiet = 0; ; quiet += 1000) {
    Atomics.wait(underWay, 0, underWay[0], 1000);
    const now = underWay.join(':');
    if (now !== last) quiet = 0;
    last = now;
    if (quiet < limit || underWay[1] === 0) continue;
    const again = 'HELIOSTAT_VALUE_SEED=' + seed + ' HELIOSTAT_VALUE_CASES=' + cases + ' HELIOSTAT_VALUE_CASE=' + now;
    require('node:fs').writeSync(2, 'a random value hangs; to see it again: ' + again + '\\n');
    process.kill(process.pid, 'SIGKILL');
  }`;

test.before(() => {
  const workerData = { underWay, seed: SEED, cases: CASES, limit: HANGS_AFTER_MS };
  new Worker(WATCHDOG, { eval: true, workerData, execArgv: [] }).unref();
});

/** Everything that can be got at from a value. */
function reachable(root: unknown): Set<unknown> {
  const found = new Set<unknown>();
  const next = [root];
  for (let at = next.pop(); next.length > 0 || at !== undefined; at = next.pop()) {
    if (typeof at !== 'object' || at === null || found.has(at)) continue;
    found.add(at);
    if (types.isMap(at)) next.push(...[...Map.prototype.entries.call(at)].flat(1));
    if (types.isSet(at)) next.push(...Set.prototype.values.call(at));
    for (const key of keysOf(at)) {
      const held: unknown = Object.getOwnPropertyDescriptor(at, key)?.value;
      if (typeof held === 'object' && held !== null) next.push(held);
    }
  }
  return found;
}

/** A value comes back the same in every respect, or is refused with the typed error because it holds what cannot be sent. */
function survives(graph: Graph): void {
  underWay[1] = (underWay[1] as number) + 1;
  if (underWay[0] === ONLY_PART && underWay[1] === PRINTED) console.log(inspect(graph, { depth: null }));
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
  if (ONLY_PART !== 0 && part !== ONLY_PART) continue;
  test.serial(`random values come back the same, or are refused: part ${part} of ${PARTS}, seed ${SEED}`, (t) => {
    // A long run is one of many minutes: its limit is that of each case.
    t.timeout(2 ** 31 - 1);
    underWay.set([part, 0]);
    // What the engine's hidden classes spare gives the same: the last part goes the long way.
    useHiddenClasses(part < PARTS);
    const numRuns = Math.ceil(CASES / PARTS);
    const seed = SEED * PARTS + part;
    fc.assert(fc.property(dataGraphs, survives), { seed, numRuns: Math.ceil(numRuns * (1 - MIXED)) });
    fc.assert(fc.property(mixedGraphs, survives), { seed, numRuns: Math.ceil(numRuns * MIXED) });
    underWay[1] = 0;
    t.pass();
  });
}
