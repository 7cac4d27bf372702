/**
 * Batch inference over Parquet shards: the model is put into the object store once, one task for each shard reads it from there.
 *
 *   npm start                    the shards in examples/data/taxi
 *   npm start -- DIR             every .parquet file of a directory
 *   npm start -- FILE FILE ...   some files
 */
import { resolve } from 'node:path';
import { init, put, remote, shutdown, TaskError } from 'heliostat';
import { Progress } from './progress.ts';
import { formatLine, listShards, loadTrainedModel, NoShardsError, predictShard } from './taxi.ts';

const predict = remote(predictShard);

/** Predicts for every shard and prints a line for each, in order; a shard that fails costs its own line only. */
async function predictAll(shards: readonly string[]): Promise<{ rows: number; failed: number; seconds: number }> {
  const modelRef = put(loadTrainedModel());
  const progress = new Progress(shards.length, 'shards');
  const results = shards.map((path) => predict.remote(modelRef, resolve(path)));

  let rows = 0;
  let failed = 0;
  for (const result of results) {
    try {
      const predictions = await result.get();
      rows += predictions.numRows;
      progress.step(formatLine(predictions));
    } catch (error) {
      failed += 1;
      progress.step();
      progress.clear();
      console.error(`error: ${messageOf(error)}`);
    }
  }
  return { rows, failed, seconds: progress.seconds() };
}

/** A task's error says where it ran; what the user can mend is its cause. */
function messageOf(error: unknown): string {
  const { message } = (error instanceof TaskError ? error.cause : error) as Error;
  return message;
}

async function main(args: readonly string[]): Promise<number> {
  const shards = await listShards(args);
  await init();
  const { rows, failed, seconds } = await predictAll(shards);
  await shutdown();

  const read = failed ? `${shards.length - failed} of ${shards.length} shards` : `${shards.length} shards`;
  const speed = Math.round(rows / seconds).toLocaleString('en');
  console.log(`${read}, ${rows.toLocaleString('en')} rows in ${seconds.toFixed(2)} s: ${speed} rows/s`);
  return failed ? 1 : 0;
}

process.exitCode = await main(process.argv.slice(2)).catch((error) => {
  console.error(error instanceof NoShardsError ? `error: ${error.message}` : error);
  return 1;
});
