import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { inspect } from 'node:util';
import { Worker } from 'node:worker_threads';
import test from 'ava';
import {
  AlreadyInitializedError,
  get,
  init,
  isInitialized,
  NotInitializedError,
  put,
  remote,
  shutdown,
} from 'heliostat';
import { descendants, eventually } from './support/cluster.js';

const FIXTURES = fileURLToPath(new URL('fixtures/', import.meta.url));

interface Program {
  child: ChildProcess;
  out: () => string;
  err: () => string;
  end: Promise<[code: number | null, signal: string | null]>;
}

function program(name: string, tempDir: string): Program {
  const child = spawn(process.execPath, [join(FIXTURES, name)], {
    env: { ...process.env, TEST_TEMP_DIR: tempDir },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let [out, err] = ['', ''];
  child.stdout.on('data', (data) => (out += data));
  child.stderr.on('data', (data) => (err += data));
  return {
    child,
    out: () => out,
    err: () => err,
    end: once(child, 'close') as Promise<[number | null, string | null]>,
  };
}

const temp = () => mkdtempSync(join(tmpdir(), 'heliostat-test-'));

/** Session directories below a temp dir. */
function sessions(tempDir: string): string[] {
  const [base] = readdirSync(tempDir);
  return base === undefined
    ? []
    : readdirSync(join(tempDir, base)).filter((name) => existsSync(join(tempDir, base, name, 'node.sock')));
}

const alive = (pid: number) => existsSync(`/proc/${pid}`) && !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));

test.serial('init, use, shutdown, and again; references end with their session', async (t) => {
  t.false(isInitialized());
  const context = await init({ numCpus: 1 });
  t.true(isInitialized());
  t.regex(context.address, /^unix:\//);
  t.is(context.dashboardUrl, null);
  const ref = put(1);
  const square = remote((x: number) => x * x);
  t.is(await square.remote(3).get(), 9);
  await shutdown();
  await shutdown();
  t.false(isInitialized());
  await init({ numCpus: 1 });
  t.throws(() => get(ref), { instanceOf: NotInitializedError });
  t.is(await square.remote(4).get(), 16, 'a remote function outlives the session');
  await shutdown();
});

test.serial('a second init with other options names the option', async (t) => {
  const context = await init({ numCpus: 1 });
  t.is(await init({ numCpus: 1 }), context);
  await t.throwsAsync(init({ numCpus: 2 }), { instanceOf: AlreadyInitializedError, message: /numCpus/ });
  t.is(await init({ numCpus: 2, ignoreReinit: true }), context);
  await shutdown();
});

test.serial('options out of range or of a wrong type are refused', async (t) => {
  await t.throwsAsync(init({ numCpus: -1 }), { instanceOf: RangeError, message: /numCpus/ });
  await t.throwsAsync(init({ objectStoreMemory: 'x' as never }), {
    instanceOf: TypeError,
    message: /objectStoreMemory/,
  });
  await t.throwsAsync(init({ nonsense: 1 } as never), { instanceOf: TypeError, message: /nonsense/ });
  t.false(isInitialized());
});

test.serial('init during a shutdown waits for its end, and logging an ended reference does not throw', async (t) => {
  await init({ numCpus: 1 });
  const ref = put(1);
  const named = put(2);
  const { id } = named;
  const ending = shutdown();
  await init({ numCpus: 1 });
  await ending;
  t.is(await get(put(3)), 3);
  t.regex(inspect(ref), /ObjectRef\(/);
  t.is(String(named), `ObjectRef(${id})`);
  await shutdown();
});

test.serial('shutdown inside a task ends nothing but what the task held', async (t) => {
  await init({ numCpus: 1 });
  const result = await remote(async () => {
    await shutdown();
    return isInitialized();
  })
    .remote()
    .get();
  t.true(result);
  t.is(
    await remote(() => 5)
      .remote()
      .get(),
    5,
  );
  await shutdown();
});

test.serial('views outlive the session, and a write into one stays harmless', async (t) => {
  await init({ numCpus: 1 });
  const view = await get(put(new Uint8Array(300_000).fill(9)));
  await shutdown();
  t.true(view.every((byte) => byte === 9));
  try {
    view[0] = 1;
  } catch (error) {
    t.true(error instanceof TypeError); // an immutable buffer
  }
  await init({ numCpus: 1 });
  t.is((await get(put(new Uint8Array(300_000).fill(3))))[0], 3);
  t.is(view[299_999], 9);
  await shutdown();
});

test.serial('threads of a process share its membership', async (t) => {
  const context = await init({ numCpus: 1 });
  const worker = new Worker(join(FIXTURES, 'thread.mjs'));
  const [answer] = await once(worker, 'message');
  t.deepEqual(answer, { nodeId: context.nodeId, value: 4, large: 200_000 });
  await once(worker, 'exit');
  t.is(
    await remote((x: number) => x + 1)
      .remote(1)
      .get(),
    2,
    'the end of the thread ended nothing here',
  );
  await shutdown();
});

test.serial('a pending get ends when the session does', async (t) => {
  await init({ numCpus: 1 });
  const pending = get(remote(() => new Promise(() => {})).remote());
  const rejected = t.throwsAsync(pending, { instanceOf: NotInitializedError });
  await shutdown();
  await rejected;
});

test('a program that never calls shutdown ends by itself and leaves nothing', async (t) => {
  const tempDir = temp();
  const run = program('no-shutdown.mjs', tempDir);
  t.deepEqual(await run.end, [0, null], run.err());
  const { sum, pids } = JSON.parse(run.out()) as { sum: number; pids: number[] };
  t.is(sum, 3);
  t.true(pids.length > 0);
  await eventually('the end of its workers', () => !pids.some(alive));
  t.deepEqual(sessions(tempDir), []);
});

test('the workers of a killed driver leave, and the next start sweeps its files', async (t) => {
  const tempDir = temp();
  const run = program('busy.mjs', tempDir);
  await eventually('its workers', () => run.out().includes('ready') || run.child.exitCode !== null);
  const workers = descendants(run.child.pid as number);
  t.true(workers.length >= 1, run.err());
  run.child.kill('SIGKILL');
  await run.end;
  await eventually('the end of its workers', () => !workers.some(alive));
  const [left] = sessions(tempDir);
  const next = program('no-shutdown.mjs', tempDir);
  t.deepEqual(await next.end, [0, null], next.err());
  t.false(left !== undefined && sessions(tempDir).includes(left));
});

test('lines of tasks arrive with name and process id, and none is lost at the end', async (t) => {
  const run = program('output.mjs', temp());
  t.deepEqual(await run.end, [0, null], run.err());
  const lines = run.out().split('\n').filter(Boolean);
  const pid = /^\(echo pid=(\d+)\) first$/.exec(lines.find((line) => line.includes('first')) ?? '')?.[1];
  t.truthy(pid, run.out());
  t.true(lines.includes(`(echo pid=${pid}) second of many`));
  t.regex(run.err(), /^\(echo pid=\d+\) to stderr$/m);
  t.is(lines.filter((line) => /^\(flood pid=\d+\) line \d+$/.test(line)).length, 5000);
});
