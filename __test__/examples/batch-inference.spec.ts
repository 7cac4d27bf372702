import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import test from 'ava';
import { init, put, remote, shutdown } from 'heliostat';
import { asyncBufferFromFile, parquetReadObjects } from 'hyparquet';
import { compressors } from 'hyparquet-compressors';
import { parquetWriteFile } from 'hyparquet-writer';
import { DEFAULT_SHARDS, listShards, loadTrainedModel, predictShard } from '../../examples/taxi.ts';
import { runExample } from './run-example.ts';

interface Expected {
  shards: { file: string; rows: number; score_ge2: number }[];
  total: { rows: number };
}

const EXAMPLE = 'examples/batch-inference.ts';
const expected: Expected = JSON.parse(await readFile(join(DEFAULT_SHARDS, 'expected.json'), 'utf8'));
const shard = (i: number) => join(DEFAULT_SHARDS, expected.shards[i]?.file as string);
const lineOf = (rows: number, score: number) => `Predictions dataframe size: ${rows} | Total score for tips: ${score}`;
const predictionLines = (stdout: string) => stdout.split('\n').filter((line) => line.startsWith('Predictions'));

// One after the other: each starts programs that use every core.
test.before(() => init());
test.after.always(() => shutdown());

test.serial('the example prints a line for each shard, in order, equal to what pandas finds', async (t) => {
  const { code, stdout, stderr } = await runExample(EXAMPLE);
  t.deepEqual(
    predictionLines(stdout),
    expected.shards.map(({ rows, score_ge2 }) => lineOf(rows, score_ge2)),
    stderr,
  );
  t.regex(stdout, /^12 shards, 787,060 rows in [\d.]+ s: [\d,]+ rows\/s$/m);
  t.regex(stderr, /shards/, 'progress is shown on standard error');
  t.is(code, 0);
});

test.serial('the benchmark without Heliostat prints the same lines', async (t) => {
  const { code, stdout } = await runExample('bench/batch-inference-plain.ts');
  t.deepEqual(
    predictionLines(stdout),
    expected.shards.map(({ rows, score_ge2 }) => lineOf(rows, score_ge2)),
  );
  t.is(code, 0);
});

test.serial('each row of each shard is predicted by the rule, and keeps the columns of its trip', async (t) => {
  const modelRef = put(loadTrainedModel());
  const predict = remote(predictShard);
  const shards = await listShards([]);
  const results = shards.map((path) => predict.remote(modelRef, path));
  let rows = 0;
  for (const [i, result] of results.entries()) {
    const { numRows, columns } = await result.get();
    const trips = await parquetReadObjects({
      file: await asyncBufferFromFile(shards[i] as string),
      columns: ['passenger_count', 'tip_amount', 'lpep_pickup_datetime', 'DOLocationID'],
      compressors,
    });
    t.is(numRows, trips.length);
    t.is(columns.score.length, trips.length);
    const wrong = trips.findIndex(
      ({ passenger_count, tip_amount, lpep_pickup_datetime, DOLocationID }, row) =>
        columns.score[row] !== (passenger_count !== null && passenger_count >= 2 ? 1 : 0) ||
        columns['tip_amount']?.[row] !== tip_amount ||
        Math.floor(columns['lpep_pickup_datetime']?.[row] as number) !== lpep_pickup_datetime.getTime() ||
        columns['DOLocationID']?.[row] !== Number(DOLocationID),
    );
    t.is(wrong, -1, `row ${wrong} of ${shards[i]}`);
    rows += numRows;
  }
  t.is(rows, expected.total.rows);
});

test.serial('a model without its payload is refused', async (t) => {
  const model = loadTrainedModel();
  const damaged = Object.assign((trips: Parameters<typeof model>[0]) => model(trips), { payload: new Float64Array(3) });
  await t.throwsAsync(predictShard(damaged, shard(0)), { message: /payload is damaged/ });
});

test.serial('a changed copy of one shard changes its line', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'heliostat-test-'));
  t.teardown(() => rm(directory, { recursive: true }));
  const trips = await parquetReadObjects({
    file: await asyncBufferFromFile(shard(1)),
    columns: ['passenger_count'],
    compressors,
  });
  const counts = trips.map(({ passenger_count }) => (passenger_count === null ? null : Number(passenger_count)));
  let toChange = 10;
  const changed = counts.map((count) => (count === 1 && toChange-- > 0 ? 5 : count));
  await parquetWriteFile({
    filename: join(directory, 'b.parquet'),
    columnData: [{ name: 'passenger_count', data: changed, type: 'DOUBLE' }],
  });
  await copyFile(shard(0), join(directory, 'a.parquet'));

  const { code, stdout, stderr } = await runExample(EXAMPLE, [directory]);
  t.deepEqual(predictionLines(stdout), [lineOf(68211, 9252), lineOf(64809, 8308 + 10)], stderr);
  t.is(code, 0);
});

test.serial('files that cannot be read are named, and the others are still predicted', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'heliostat-test-'));
  t.teardown(() => rm(directory, { recursive: true }));
  const bytes = await readFile(shard(1));
  const bad: Record<string, [content: Buffer | undefined, message: RegExp]> = {
    'missing.parquet': [undefined, /no such file/],
    'empty.parquet': [Buffer.alloc(0), /the file is empty/],
    'text.parquet': [Buffer.from('passenger_count\n1\n2\n'), /not a Parquet file/],
    'cut.parquet': [bytes.subarray(0, 500_000), /not a Parquet file, or a damaged one/],
    'scrambled.parquet': [
      bytes.map((byte, i) => (i > 1000 && i < bytes.length - 10_000 && i % 97 === 0 ? ~byte : byte)) as Buffer,
      /damaged/,
    ],
  };
  for (const [name, [content]] of Object.entries(bad)) if (content) await writeFile(join(directory, name), content);
  await parquetWriteFile({
    filename: join(directory, 'no-column.parquet'),
    columnData: [{ name: 'passengers', data: [1, 2, 3], type: 'INT32' }],
  });
  await parquetWriteFile({
    filename: join(directory, 'text-column.parquet'),
    columnData: [{ name: 'passenger_count', data: ['1', '2', '3'], type: 'STRING' }],
  });
  bad['no-column.parquet'] = [undefined, /wrong schema: no column passenger_count among passengers/];
  bad['text-column.parquet'] = [undefined, /wrong schema: column passenger_count holds BYTE_ARRAY, not numbers/];

  const paths = [shard(0), ...Object.keys(bad).map((name) => join(directory, name)), shard(2)];
  const { code, stdout, stderr } = await runExample(EXAMPLE, paths);
  t.deepEqual(predictionLines(stdout), [lineOf(68211, 9252), lineOf(72044, 9501)], stderr);
  t.regex(stdout, /^2 of 9 shards, /m);
  for (const [name, [, message]] of Object.entries(bad)) {
    const line = stderr.split('\n').find((text) => text.startsWith(`error: ${join(directory, name)}: `));
    t.regex(line ?? stderr, message, name);
  }
  t.is(code, 1);
});

test.serial('small files of other origin will do: no other columns, several row groups, odd numbers', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'heliostat-test-'));
  t.teardown(() => rm(directory, { recursive: true }));
  const filename = join(directory, 'small.parquet');
  await parquetWriteFile({
    filename,
    columnData: [{ name: 'passenger_count', data: [2, null, 1.5, 2.5, -3, 1e9, 0, 3], type: 'DOUBLE' }],
    rowGroupSize: 3,
  });
  const { numRows, columns } = await predictShard(loadTrainedModel(), filename);
  t.is(numRows, 8);
  t.deepEqual([...columns.score], [1, 0, 0, 1, 0, 1, 0, 1]);
});

test.serial('a directory without Parquet files is an error that names it', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'heliostat-test-'));
  t.teardown(() => rm(directory, { recursive: true }));
  const { code, stderr } = await runExample(EXAMPLE, [directory]);
  t.regex(stderr, new RegExp(`error: .*${basename(directory)}: no .parquet files`));
  t.is(code, 1);
});
