/**
 * The main job with Heliostat against the same in one process (`batch-inference-plain.ts`). Both are timed from the first submission
 * to the last printed line, in turns. The first pass of each is the cold one and does not count; the ratio is the median of the pairs.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { init, put, remote, shutdown } from 'heliostat';
import { DEFAULT_SHARDS, formatLine, listShards, loadTrainedModel, predictShard } from '../examples/taxi.ts';
import { type Pass, timePass } from './pass.ts';
import { median, Report } from './report.ts';

const PAIRS = 15;

const shards = await listShards([]);
const expected = JSON.parse(await readFile(join(DEFAULT_SHARDS, 'expected.json'), 'utf8'));
const predict = remote(predictShard);

const plain = fork(new URL('batch-inference-plain.ts', import.meta.url));
async function plainPass(): Promise<Pass> {
  const answer = once(plain, 'message');
  plain.send('pass');
  return checked((await answer)[0]);
}

const started = performance.now();
await init();
const initMilliseconds = performance.now() - started;
const modelRef = put(loadTrainedModel());
async function heliostatPass(): Promise<Pass> {
  const pass = await timePass(async (print) => {
    const results = shards.map((path) => predict.remote(modelRef, path));
    for (const result of results) print(formatLine(await result.get()));
  });
  return checked(pass);
}

function checked(pass: Pass): Pass {
  for (const [i, { rows, score_ge2 }] of expected.shards.entries()) {
    const line = `Predictions dataframe size: ${rows} | Total score for tips: ${score_ge2}`;
    if (pass.lines[i] !== line) throw new Error(`shard ${i}: ${pass.lines[i]}, expected ${line}`);
  }
  return pass;
}

const coldPlain = (await plainPass()).milliseconds;
const coldHeliostat = (await heliostatPass()).milliseconds;
const pairs: { plain: number; heliostat: number }[] = [];
for (let i = 0; i < PAIRS; i++) {
  const { milliseconds } = await plainPass();
  pairs.push({ plain: milliseconds, heliostat: (await heliostatPass()).milliseconds });
}
plain.disconnect();
await shutdown();

const plainMs = median(pairs.map((pair) => pair.plain));
const heliostatMs = median(pairs.map((pair) => pair.heliostat));
const ratio = median(pairs.map((pair) => pair.plain / pair.heliostat));
const rows = (milliseconds: number) => (expected.total.rows / milliseconds) * 1000;
const report = new Report(
  `Batch inference: ${shards.length} shards, ${expected.total.rows} rows, ${PAIRS} pairs of passes`,
);
report.add({ name: 'one process, warm', ms: plainMs, 'rows/s': rows(plainMs) });
report.add({ name: 'Heliostat, warm', ms: heliostatMs, 'rows/s': rows(heliostatMs), 'times faster': ratio });
report.add({ name: 'one process, first pass', ms: coldPlain, 'rows/s': rows(coldPlain) });
report.add({
  name: 'Heliostat, first pass',
  ms: coldHeliostat,
  'rows/s': rows(coldHeliostat),
  'times faster': coldPlain / coldHeliostat,
});
report.add({ name: 'init()', ms: initMilliseconds });
report.finish();
