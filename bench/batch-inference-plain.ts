/**
 * The batch inference job in one process, without Heliostat: the same Parquet library, columns, model and checks.
 *
 *   node --import tsx bench/batch-inference-plain.ts [DIR | FILE ...]
 *
 * As the child of `batch-inference.ts` it makes one pass over the shards for each message instead.
 */
import { formatLine, listShards, loadTrainedModel, predictShard } from '../examples/taxi.ts';
import { timePass } from './pass.ts';

const model = loadTrainedModel();
const shards = await listShards(process.argv.slice(2));

async function predictAll(print: (line: string) => void): Promise<void> {
  for (const path of shards) print(formatLine(await predictShard(model, path)));
}

if (process.send) process.on('message', async () => process.send?.(await timePass(predictAll)));
else await predictAll(console.log);
