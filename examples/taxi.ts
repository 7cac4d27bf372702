/**
 * The parts of the batch inference job that know nothing of Heliostat: the model, reading a shard, the checks and the lines to
 * print. `batch-inference.ts` runs them as tasks, `bench/batch-inference-plain.ts` runs the very same in one process.
 */
import { type FileHandle, open, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type AsyncBuffer, type DecodedArray, type FileMetaData, parquetMetadataAsync, parquetRead } from 'hyparquet';
import { compressors } from 'hyparquet-compressors';

/** The columns of a shard as numbers: times are milliseconds since 1970, a missing value is NaN. */
export interface Trips {
  readonly numRows: number;
  readonly columns: { readonly passenger_count: Float64Array; readonly [name: string]: Float64Array };
}

/** One row for each trip: `score` is 1 where a tip is predicted; the other columns say which trip it is, and what was paid. */
export interface Predictions {
  readonly numRows: number;
  readonly columns: { readonly score: Uint8Array; readonly [name: string]: Uint8Array | Float64Array };
}

export interface Model {
  (trips: Trips): Predictions;
  /** What makes the model heavy: a weight for each number of passengers, 10, 11, 12 … 100000. */
  readonly payload: Float64Array;
}

const FIRST_WEIGHT = 10;
const LAST_WEIGHT = 100_000;

/** Tells a prediction's trip from others; files that lack one of these are read all the same. */
const TRIP_COLUMNS = ['lpep_pickup_datetime', 'PULocationID', 'DOLocationID', 'tip_amount'];
const COLUMNS = ['passenger_count', ...TRIP_COLUMNS];
const NUMERIC_TYPES = ['INT32', 'INT64', 'FLOAT', 'DOUBLE'];

/** A dummy model: a tip is expected where the weight of the passengers reaches that of two, so from two passengers on. */
export function loadTrainedModel(): Model {
  const payload = Float64Array.from({ length: LAST_WEIGHT - FIRST_WEIGHT + 1 }, (_, i) => FIRST_WEIGHT + i);
  const model = ({ numRows, columns }: Trips): Predictions => {
    const { passenger_count, ...trip } = columns;
    const enough = payload[2] ?? Number.NaN;
    const score = new Uint8Array(numRows);
    for (let row = 0; row < numRows; row++) {
      // A missing count is NaN and finds no weight, and `undefined >= enough` is false: no tip.
      const weight = payload[Math.min(Math.floor(passenger_count[row] as number), payload.length - 1)] as number;
      if (weight >= enough) score[row] = 1;
    }
    return { numRows, columns: { score, ...trip } };
  };
  return Object.assign(model, { payload });
}

/** Refuses a model that lost some of its payload on the way. */
export function checkModel({ payload }: Model): void {
  const length = LAST_WEIGHT - FIRST_WEIGHT + 1;
  let sum = 0;
  for (const weight of payload) sum += weight;
  if (payload.length !== length || sum !== (length * (FIRST_WEIGHT + LAST_WEIGHT)) / 2) {
    throw new Error(`the model's payload is damaged: ${payload.length} weights with the sum ${sum}`);
  }
}

/** The work of one task: reads a shard and predicts a tip, or none, for each of its trips. */
export async function predictShard(model: Model, path: string): Promise<Predictions> {
  checkModel(model);
  return model(await readTrips(path));
}

/** Reads the columns that the job needs; every failure names the file. */
export async function readTrips(path: string): Promise<Trips> {
  let file: FileHandle | undefined;
  try {
    file = await open(path);
    return await readColumns(await asAsyncBuffer(file));
  } catch (error) {
    throw new Error(`${path}: ${reasonOf(error)}`, { cause: error });
  } finally {
    await file?.close();
  }
}

async function asAsyncBuffer(file: FileHandle): Promise<AsyncBuffer> {
  const info = await file.stat();
  if (!info.isFile()) throw new Error('not a file');
  if (info.size === 0) throw new Error('the file is empty');
  return {
    byteLength: info.size,
    async slice(start, end = info.size) {
      const bytes = new Uint8Array(end - start);
      const { bytesRead } = await file.read(bytes, 0, bytes.length, start);
      if (bytesRead !== bytes.length) throw new Error(`the file ends at byte ${start + bytesRead}`);
      return bytes.buffer;
    },
  };
}

async function readColumns(file: AsyncBuffer): Promise<Trips> {
  const metadata = await parquetMetadataAsync(file).catch((error) => {
    throw new Error(`not a Parquet file, or a damaged one: ${error.message}`, { cause: error });
  });
  const wanted = numericColumns(metadata);
  const numRows = Number(metadata.num_rows);
  const columns: Record<string, Float64Array> = {};
  const filled: Record<string, number> = {};
  for (const name of wanted) {
    columns[name] = new Float64Array(numRows);
    filled[name] = 0;
  }
  await parquetRead({
    file,
    metadata,
    columns: wanted,
    compressors,
    parsers: { timestampFromMilliseconds: Number, timestampFromMicroseconds: (time) => Number(time) / 1000 },
    onChunk({ columnName, columnData, rowStart }) {
      copyNumbers(columnData, columns[columnName] as Float64Array, rowStart);
      filled[columnName] = (filled[columnName] as number) + columnData.length;
    },
  }).catch((error) => {
    throw new Error(`damaged: ${error.message}`, { cause: error });
  });
  for (const name of wanted) {
    if (filled[name] !== numRows) throw new Error(`damaged: ${filled[name]} values of ${name} for ${numRows} rows`);
  }
  return { numRows, columns: columns as Trips['columns'] };
}

/** The wanted columns that the file has; throws where passenger_count is missing or one of them isn't a number for each row. */
function numericColumns({ schema }: FileMetaData): string[] {
  const topLevel = topLevelElements(schema);
  const present = COLUMNS.filter((name) => topLevel.has(name));
  if (!present.includes('passenger_count')) {
    throw new Error(`wrong schema: no column passenger_count among ${[...topLevel.keys()].join(', ') || 'none'}`);
  }
  for (const name of present) {
    const { type, repetition_type, num_children } = topLevel.get(name) as FileMetaData['schema'][number];
    if (num_children || repetition_type === 'REPEATED' || !type || !NUMERIC_TYPES.includes(type)) {
      throw new Error(`wrong schema: column ${name} holds ${num_children ? 'a nested type' : type}, not numbers`);
    }
  }
  return present;
}

/** The schema is a list in depth-first order: the root, then each child followed by its own children. */
function topLevelElements(schema: FileMetaData['schema']): Map<string, FileMetaData['schema'][number]> {
  const found = new Map<string, FileMetaData['schema'][number]>();
  let inside = 0;
  for (const element of schema.slice(1)) {
    if (inside === 0) found.set(element.name, element);
    else inside -= 1;
    inside += element.num_children ?? 0;
  }
  return found;
}

function copyNumbers(from: DecodedArray, to: Float64Array, start: number): void {
  for (let i = 0; i < from.length; i++) {
    const value = from[i];
    to[start + i] = value === null || value === undefined ? Number.NaN : Number(value);
  }
}

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  switch ((error as NodeJS.ErrnoException).code) {
    case 'ENOENT':
      return 'no such file';
    case 'EACCES':
      return 'no permission to read it';
    default:
      return error.message;
  }
}

/** The line for one shard, as in the article. */
export function formatLine({ numRows, columns }: Predictions): string {
  let total = 0;
  for (const score of columns.score) total += score;
  return `Predictions dataframe size: ${numRows} | Total score for tips: ${total}`;
}

/** The shards that ship with the examples: New York's green taxi trips of 2023, one file for each month. */
export const DEFAULT_SHARDS = fileURLToPath(new URL('data/taxi', import.meta.url));

/** There is nothing to do. */
export class NoShardsError extends Error {}

/** The Parquet files behind the arguments: directories are listed, everything else is taken as a file and left to its task. */
export async function listShards(paths: readonly string[]): Promise<string[]> {
  const lists = await Promise.all((paths.length ? paths : [DEFAULT_SHARDS]).map(listShard));
  return lists.flat();
}

async function listShard(path: string): Promise<string[]> {
  const info = await stat(path).catch(() => undefined);
  if (!info?.isDirectory()) return [path];
  const names = (await readdir(path)).filter((name) => name.endsWith('.parquet')).sort();
  if (names.length === 0) throw new NoShardsError(`${path}: no .parquet files in this directory`);
  return names.map((name) => join(path, name));
}
