// A fresh process with as many modules of its own as it is told: prints as JSON what it costs to make its functions remote.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { Session } from 'node:inspector';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { init, remote, shutdown } from 'heliostat';
import { parquetReadObjects } from 'hyparquet';

const [scripts, when] = process.argv.slice(2);
const directory = mkdtempSync(join(tmpdir(), 'heliostat-bench-'));
const text = (n) => `
const limit = ${n};
export class Item${n} { #n = limit; get n() { return this.#n; } }
export const add = (x) => x + limit;
export async function load(list) { return list.map(add).filter((x) => x > limit); }
`;
for (let n = 0; n < Number(scripts); n++) {
  const file = join(directory, `module-${n}.mjs`);
  writeFileSync(file, text(n));
  await import(pathToFileURL(file).href);
}

const milliseconds = (call) => {
  const started = performance.now();
  call();
  return performance.now() - started;
};

/** What a program does all day: calls, objects, promises. */
async function work() {
  let sum = 0;
  for (let round = 0; round < 200_000; round++) {
    const item = { round, next: (x) => x + round };
    sum += item.next(item.round);
    if (round % 20 === 0) sum += await Promise.resolve(1);
  }
  return sum;
}
/** The best of several: what else runs on the machine only makes it slower. */
async function workTime() {
  let best = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 8; i++) {
    const started = performance.now();
    await work();
    best = Math.min(best, performance.now() - started);
  }
  return best;
}
const before = await workTime();

const factor = 3;
const names = ['a', 'b'];
const first = remote((x) => [x * factor, names.length, typeof parquetReadObjects]);
// Each has a text of its own, as the functions of a program have.
const further = [
  (x) => x + factor,
  (x) => x - factor,
  (x) => names[x],
  (x) => names.map((name) => name + x),
  async (x) => (await x) + factor,
  function named(x) {
    return x * factor;
  },
  (x) => ({ x, names }),
  (x) => [typeof parquetReadObjects, x],
  (x) => (x > factor ? names[0] : names[1]),
  (x) => String(x).padStart(factor),
];

await init({ numCpus: 1, objectStoreMemory: 64 << 20 });
// A program that lets the event loop turn before its first call has what that costs once behind it; one that does not pays it there.
if (when === 'later') await new Promise((resolve) => setTimeout(resolve, 500));
const refs = [];
const firstCall = milliseconds(() => refs.push(first.remote(1)));
const furtherCalls = further.map((run) => {
  const task = remote(run);
  return milliseconds(() => refs.push(task.remote(1)));
});
const secondCalls = Array.from({ length: 100 }, () => milliseconds(() => refs.push(first.remote(1))));
await Promise.all(refs.map((ref) => ref.get()));
await shutdown();
const after = await workTime();

const session = new Session();
session.connect();
let known = 0;
session.on('Debugger.scriptParsed', () => known++);
const enable = milliseconds(() => session.post('Debugger.enable'));
session.disconnect();
rmSync(directory, { recursive: true });
console.log(JSON.stringify({ firstCall, furtherCalls, secondCalls, enable, known, before, after }));
