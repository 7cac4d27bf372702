import { cpSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import * as arrow from 'apache-arrow';
import test from 'ava';
import { get, put, remote, SerializationError, state } from 'heliostat';
import { withCluster } from '../support/cluster.js';

withCluster(test);

const ROWS = 50_000;

function sample(from: number): arrow.Table {
  const rows = Array.from({ length: ROWS }, (_, i) => from + i);
  const nullable = <T>(make: (i: number) => T) => rows.map((i) => (i % 7 === 0 ? null : make(i)));
  return new arrow.Table({
    f: arrow.vectorFromArray(Float64Array.from(rows)),
    i: arrow.vectorFromArray(
      nullable((i) => i),
      new arrow.Int32(),
    ),
    big: arrow.vectorFromArray(
      nullable((i) => BigInt(i) ** 3n),
      new arrow.Int64(),
    ),
    text: arrow.vectorFromArray(
      nullable((i) => `row ${i} ✓`),
      new arrow.Utf8(),
    ),
    kind: arrow.vectorFromArray(
      rows.map((i) => `kind ${i % 10}`),
      new arrow.Dictionary(new arrow.Utf8(), new arrow.Int8()),
    ),
    flag: arrow.vectorFromArray(
      nullable((i) => i % 2 === 0),
      new arrow.Bool(),
    ),
    time: arrow.vectorFromArray(
      nullable((i) => new Date(i * 1000)),
      new arrow.TimestampMillisecond('UTC'),
    ),
    list: arrow.vectorFromArray(
      nullable((i) => [i, i + 1].slice(0, i % 3)),
      new arrow.List(new arrow.Field('item', new arrow.Int16(), true)),
    ),
    both: arrow.vectorFromArray(
      nullable((i) => ({ x: i, y: `${i}` })),
      new arrow.Struct([new arrow.Field('x', new arrow.Float32(), true), new arrow.Field('y', new arrow.Utf8(), true)]),
    ),
  } as never);
}

/** Everything in a table, by arrow's own words. */
function contents(table: arrow.Table): string {
  return JSON.stringify(table.toArray(), (_, value) => (typeof value === 'bigint' ? `${value}n` : value));
}

test('tables of all kinds of columns, with several batches and slices, arrive in another process and return', async (t) => {
  const whole = sample(0).concat(sample(ROWS));
  t.is(whole.batches.length, 2);
  const describe = remote((table: arrow.Table) => ({
    isTable: table instanceof arrow.Table,
    names: table.schema.fields.map((field) => `${field}`),
    texts: [1, 49_999, 50_001].map((row) => table.getChild('text')?.get(row) as string),
    kind: table.getChild('kind')?.get(60_003) as string,
    table,
  }));
  const tables: arrow.Table[] = [whole, whole.slice(49_990, 50_020), whole.select(['f', 'list']), new arrow.Table()];
  for (const table of tables) {
    const found = await describe.remote(put(table)).get();
    t.true(found.isTable);
    t.deepEqual(
      found.names,
      table.schema.fields.map((field) => `${field}`),
    );
    t.deepEqual(
      found.texts,
      [1, 49_999, 50_001].map((row) => table.getChild('text')?.get(row)),
    );
    t.is(found.kind, table.getChild('kind')?.get(60_003));
    t.true(found.table instanceof arrow.Table);
    t.is(contents(found.table), contents(table));
  }
});

test('record batches, vectors of one and several chunks, memoized ones and data arrive as they are', async (t) => {
  const table = sample(0);
  const batch = table.batches[0] as arrow.RecordBatch;
  const chunked = table.concat(sample(5)).getChild('i') as arrow.Vector<arrow.Int32>;
  const memoized = (table.getChild('text') as arrow.Vector<arrow.Utf8>).memoize() as arrow.Vector<arrow.Utf8>;
  const sent = { batch, chunked, again: chunked, memoized, data: chunked.data[0] };
  const back = await get(put(sent));
  t.true(back.batch instanceof arrow.RecordBatch);
  t.is(contents(new arrow.Table([back.batch])), contents(table));
  t.true(back.chunked instanceof arrow.Vector && back.chunked.data.length === 2);
  t.deepEqual([...back.chunked], [...chunked]);
  t.is(back.again, back.chunked);
  t.is(back.data, back.chunked.data[0] as never);
  t.true(back.memoized.isMemoized);
  t.deepEqual([...back.memoized.slice(10, 30)], [...memoized.slice(10, 30)]);
});

test.serial('columns are views of the store: reading and passing a table copies nothing into it', async (t) => {
  const values = Float64Array.from({ length: 1_000_000 }, (_, i) => i);
  const ref = put(new arrow.Table({ values: arrow.makeVector(values) }));
  const { copied } = await state.memory();
  const sum = remote((table: arrow.Table) => {
    const { values } = (table.getChild('values') as arrow.Vector).data[0] as { values: Float64Array };
    // One buffer of the store holds nothing but the column.
    return { last: values[999_999], bytes: values.buffer.byteLength };
  });
  t.deepEqual(await sum.remote(ref).get(), { last: 999_999, bytes: 8_000_000 });
  const back = await get(ref);
  t.is((back.getChild('values') as arrow.Vector).get(5), 5);
  t.is((await state.memory()).copied, copied);
});

test('a vector that carries more than Arrow gave it is refused', (t) => {
  const vector = Object.assign(arrow.vectorFromArray([1, 2]), { unit: 'm' });
  t.throws(() => put({ vector }), { instanceOf: SerializationError, message: /\$\.vector.*properties of its own/ });
});

test.serial('where Arrow is not installed, the error names the package and its version', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'heliostat-arrow-'));
  const modules = fileURLToPath(new URL('../../node_modules', import.meta.url));
  cpSync(join(modules, 'apache-arrow'), join(directory, 'node_modules/apache-arrow'), { recursive: true });
  for (const name of ['flatbuffers', 'tslib']) symlinkSync(join(modules, name), join(directory, 'node_modules', name));
  const { vectorFromArray } = (await import(
    pathToFileURL(join(directory, 'node_modules/apache-arrow/Arrow.node.mjs')).href
  )) as typeof arrow;
  const ref = put(vectorFromArray([1, 2, 3]));
  const here = process.cwd();
  rmSync(directory, { recursive: true });
  process.chdir(tmpdir());
  try {
    const error = await t.throwsAsync(get(ref), { instanceOf: SerializationError });
    t.regex(error?.message ?? '', /apache-arrow\/\S+ \(version \d+\.\d+\.\d+\), which is not installed/);
  } finally {
    process.chdir(here);
  }
});
