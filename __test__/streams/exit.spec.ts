import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { init, NodeDiedError, NotInitializedError, type ObjectRef, remote, shutdown } from 'heliostat';
import { descendants, eventually } from '../support/cluster.js';
import { alive } from '../support/promises.js';

const PROGRAM = fileURLToPath(new URL('../fixtures/streams.mjs', import.meta.url));

interface Driver {
  child: ChildProcess;
  tempDir: string;
  address: string;
  workers: number[];
  out: () => string;
  err: () => string;
}

async function driver(way: string): Promise<Driver> {
  const tempDir = mkdtempSync(join(tmpdir(), 'heliostat-test-'));
  const env = { ...process.env, TEST_TEMP_DIR: tempDir };
  const child = spawn(process.execPath, [PROGRAM, way], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  let [out, err] = ['', ''];
  child.stdout.on('data', (data) => (out += data));
  child.stderr.on('data', (data) => (err += data));
  await eventually('its streams', () => out.includes('\n') || child.exitCode !== null);
  const [address = ''] = out.split('\n');
  return { child, tempDir, address, workers: descendants(child.pid as number), out: () => out, err: () => err };
}

async function nothingIsLeft(of: Driver): Promise<void> {
  await eventually('the end of its workers', () => !of.workers.some(alive));
  const sessions = dirname(dirname(of.address.slice('unix:'.length)));
  // What a killed driver left is removed by the next one that starts there.
  await init({ numCpus: 1, tempDir: of.tempDir, logToDriver: false });
  await shutdown();
  const left = existsSync(sessions) ? readdirSync(sessions).filter((name) => name.startsWith('s-')) : [];
  if (left.length > 0) throw new Error(`sessions are left: ${left}`);
}

test.serial('streams that nobody waits for do not keep the program, and are no failures', async (t) => {
  const program = await driver('unfinished');
  if (program.child.exitCode === null) await once(program.child, 'exit');
  t.is(program.child.exitCode, 0);
  t.is(program.err(), '');
  await nothingIsLeft(program);
});

test.serial('a pending next() keeps the program until it is answered', async (t) => {
  const program = await driver('pending');
  const [code] = (await once(program.child, 'close')) as [number];
  t.is(code, 0);
  t.deepEqual(program.out().split('\n').slice(1, 3), ['item 0', 'item 1']);
  t.is(program.err(), '');
  await nothingIsLeft(program);
});

test.serial('a killed driver with open streams leaves no process, no memory and no file', async (t) => {
  const program = await driver('forever');
  t.true(program.workers.length >= 3);
  const end = once(program.child, 'exit');
  program.child.kill('SIGKILL');
  await end;
  await nothingIsLeft(program);
  t.pass();
});

test.serial('the death of the node ends the streams of a process that had joined it', async (t) => {
  const program = await driver('forever');
  await init({ address: program.address });
  const slow = remote(
    async function* slow() {
      yield 1;
      await new Promise(() => {});
    },
    { numCpus: 0 },
  );
  const generator = slow.remote();
  t.is(await (await generator.next()).value?.get(), 1);
  const pending = generator.next();
  program.child.kill('SIGKILL');
  const { value } = await pending;
  await t.throwsAsync((value as ObjectRef).get(), { instanceOf: NodeDiedError });
  t.true((await generator.next()).done);
  await t.throwsAsync(generator.completed.get(), { instanceOf: NodeDiedError });
  await shutdown();
  await nothingIsLeft(program);
});

test.serial('shutdown() ends streams: what is pending and what is asked later throws', async (t) => {
  await init({ numCpus: 1 });
  const never = remote(async function* never() {
    yield 1;
    await new Promise(() => {});
  });
  const generator = never.remote();
  await generator.next();
  const pending = t.throwsAsync(generator.next(), { instanceOf: NotInitializedError });
  await shutdown();
  await pending;
  await t.throwsAsync(generator.next(), { instanceOf: NotInitializedError });
  await generator.return();
  t.true((await generator.next()).done);
});
