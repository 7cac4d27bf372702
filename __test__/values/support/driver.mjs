// Sends every shape of a table to a fresh process and prints, as JSON, how each fared.
import { fork } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { isDeepStrictEqual } from 'node:util';

const [table, worker] = process.argv.slice(2);
const { encode } = createRequire(import.meta.url)(process.env.VALUES);

function encoded(run) {
  const { header, buffers } = encode(run, { root: 'task' });
  const copies = buffers.map((view) => view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
  return { header: Uint8Array.from(header), buffers: copies };
}

const sent = [];
globalThis.checkShapes = (shapes) => {
  for (const { name, run, refused } of shapes) {
    try {
      sent.push({ name, message: encoded(run) });
    } catch (error) {
      const isExpected = error.code === 'SERIALIZATION' && refused?.test(error.message) === true;
      sent.push({ name, outcome: isExpected ? 'refused' : `failed here: ${error.stack}` });
    }
  }
};

const { shapes, outcomes } = await import(pathToFileURL(table).href);
if (sent.length === 0) globalThis.checkShapes(shapes);

const child = fork(worker, {
  cwd: mkdtempSync(join(tmpdir(), 'away-')),
  serialization: 'advanced',
  execArgv: [],
  env: { ...process.env, NODE_OPTIONS: '' },
});
const ask = (message) =>
  new Promise((resolve) => {
    child.once('message', resolve);
    child.send(message);
  });

async function judge({ run, args = [], drain = false, throws, refused, local }, { outcome, message }, id) {
  if (outcome !== undefined) return outcome;
  if (refused !== undefined) return 'was not refused';
  const { result, error } = await ask({ id, args, drain, ...message });
  if (throws !== undefined) return throws.test(error?.message) ? 'works' : `did not throw: ${JSON.stringify(result)}`;
  if (error !== undefined) return `failed there: ${error.stack}`;
  let expected = local;
  if (local === undefined) {
    expected = await run(...args);
    if (drain) {
      const items = [];
      for await (const item of expected) items.push(item);
      expected = items;
    }
  }
  return isDeepStrictEqual(result, expected)
    ? 'works'
    : `gave ${JSON.stringify(result)} for ${JSON.stringify(expected)}`;
}

const rows = [];
for (let i = 0; i < shapes.length; i++) rows.push([shapes[i].name, await judge(shapes[i], sent[i], i)]);
console.log(JSON.stringify(rows));
child.disconnect();
process.exit(outcomes === undefined ? 0 : 1);
