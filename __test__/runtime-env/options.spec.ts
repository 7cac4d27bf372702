/** Variables and flags of workers: merged, inherited, kept apart. */
import { pathToFileURL } from 'node:url';
import { getHeapStatistics } from 'node:v8';
import test from 'ava';
import { AlreadyInitializedError, get, getRuntimeContext, init, type RuntimeEnv, remote, state } from 'heliostat';
import { eventually, withCluster } from '../support/cluster.js';
import { directory } from './support.js';

withCluster(test, {
  runtimeEnv: { envVars: { JOB: 'job', BOTH: 'of the job' }, execArgv: ['--stack-trace-limit=17'] },
});

const seen = remote((names: string[]) => names.map((name) => process.env[name] ?? null));
const pid = remote(() => process.pid);

test.serial("the environment of init() is that of every task, and not the driver's", async (t) => {
  t.deepEqual(await seen.remote(['JOB', 'BOTH']).get(), ['job', 'of the job']);
  t.is(process.env['JOB'], undefined);
  t.is(
    await remote(() => Error.stackTraceLimit)
      .remote()
      .get(),
    17,
  );
});

test.serial("a task's variables go over the job's one by one, and its flags replace them", async (t) => {
  const own = seen.options({ runtimeEnv: { envVars: { BOTH: 'of the task', OWN: 'own' } } });
  t.deepEqual(await own.remote(['JOB', 'BOTH', 'OWN', 'HOME']).get(), [
    'job',
    'of the task',
    'own',
    process.env['HOME'] ?? null,
  ]);
  const flags = remote(() =>
    process.execArgv.filter((flag) => flag.startsWith('--stack') || flag.startsWith('--max-old')),
  );
  t.deepEqual(await flags.remote().get(), ['--stack-trace-limit=17']);
  const heap = flags.options({ runtimeEnv: { execArgv: ['--max-old-space-size=77'] } });
  t.deepEqual(await heap.remote().get(), ['--max-old-space-size=77']);
  const limit = remote(() => getHeapStatistics().heap_size_limit).options({
    runtimeEnv: { execArgv: ['--max-old-space-size=77'] },
  });
  t.true((await limit.remote().get()) < getHeapStatistics().heap_size_limit);
  t.deepEqual(await seen.remote(['BOTH', 'OWN']).get(), ['of the job', null], 'others are as before');
});

test.serial('--import runs a module before the first task', async (t) => {
  const root = directory({ 'setup.mjs': 'globalThis.setUp = "by " + import.meta.url;' });
  const url = pathToFileURL(`${root}/setup.mjs`).href;
  const setUp = remote(() => (globalThis as { setUp?: string }).setUp);
  t.is(
    await setUp
      .options({ runtimeEnv: { execArgv: [`--import=${url}`] } })
      .remote()
      .get(),
    `by ${url}`,
  );
  t.is(
    await setUp
      .options({ runtimeEnv: { execArgv: ['--import', url] } })
      .remote()
      .get(),
    `by ${url}`,
  );
  t.is(await setUp.remote().get(), undefined);
});

test.serial('workers are of one environment, whatever order it is written in', async (t) => {
  const one = await pid
    .options({ runtimeEnv: { envVars: { A: '1', B: '2' } } })
    .remote()
    .get();
  const same = await pid
    .options({ runtimeEnv: { envVars: { B: '2', A: '1', JOB: 'job' } } })
    .remote()
    .get();
  const other = await pid
    .options({ runtimeEnv: { envVars: { A: '1', B: '3' } } })
    .remote()
    .get();
  const plain = await pid.options({ runtimeEnv: {} }).remote().get();
  t.is(same, one);
  t.is(new Set([one, other, plain]).size, 3);
});

test.serial('tasks of a task inherit its environment, and merge theirs over it', async (t) => {
  const outer = remote(
    async () => {
      const inner = seen.options({ runtimeEnv: { envVars: { INNER: 'inner', BOTH: 'of the inner' } } });
      return [await get(seen.remote(['JOB', 'BOTH', 'OUTER'])), await get(inner.remote(['BOTH', 'OUTER', 'INNER']))];
    },
    { runtimeEnv: { envVars: { OUTER: 'outer', BOTH: 'of the outer' } } },
  );
  t.deepEqual(await outer.remote().get(), [
    ['job', 'of the outer', 'outer'],
    ['of the inner', 'outer', 'inner'],
  ]);
});

test.serial(
  'options merge over earlier ones, and a remote function keeps its environment wherever it goes',
  async (t) => {
    const named = seen.options({ runtimeEnv: { envVars: { OWN: 'kept' } } }).options({ name: 'named' });
    t.deepEqual(await named.remote(['OWN']).get(), ['kept']);
    t.deepEqual(
      await named
        .options({ runtimeEnv: { envVars: { NEW: 'new' } } })
        .remote(['OWN', 'NEW'])
        .get(),
      [null, 'new'],
    );
    const through = remote(async () => get(named.remote(['OWN'])));
    t.deepEqual(await through.remote().get(), ['kept']);
  },
);

test.serial('idle workers of other environments make room', async (t) => {
  const pids = new Set<number>();
  for (let index = 0; index < 12; index += 1) {
    pids.add(
      await pid
        .options({ runtimeEnv: { envVars: { INDEX: String(index) } } })
        .remote()
        .get(),
    );
  }
  t.is(pids.size, 12, 'each of its own');
  let last = 0;
  await eventually(
    () => `at most 8 workers, half of the 16 that 2 CPUs may have (there are ${last})`,
    async () => {
      last = (await state.listWorkers()).length;
      return last <= 8;
    },
  );
});

test.serial('many tasks of two environments share the CPUs without starving each other', async (t) => {
  const slow = remote(async (ms: number) => {
    await new Promise((resolve) => setTimeout(resolve, ms));
    return [getRuntimeContext().taskName, process.env['SIDE']];
  });
  const sides = ['left', 'right'].map((side) => slow.options({ name: side, runtimeEnv: { envVars: { SIDE: side } } }));
  const refs = Array.from({ length: 60 }, (_, index) => (sides[index % 2] as typeof slow).remote(index % 7));
  for (const [name, side] of await get(refs)) t.is(name, side);
});

test.serial('a second init() with another environment names it', async (t) => {
  const first = { JOB: 'job', BOTH: 'of the job' };
  const options = { numCpus: 2, objectStoreMemory: 256 << 20 };
  const execArgv = ['--stack-trace-limit=17'];
  await init({ ...options, runtimeEnv: { envVars: { ...first }, execArgv } });
  const error = await t.throwsAsync(
    init({ ...options, runtimeEnv: { envVars: { ...first, JOB: 'a secret' }, execArgv } }),
    { instanceOf: AlreadyInitializedError, message: /runtimeEnv/ },
  );
  t.false(error?.message.includes('a secret'));
  await t.throwsAsync(init(options), { instanceOf: AlreadyInitializedError, message: /runtimeEnv/ });
});

const wrong: [unknown, RegExp][] = [
  ['text', /^runtimeEnv must be an object, got "text"/],
  [null, /^runtimeEnv must be an object, got null/],
  [[], /^runtimeEnv must be an object, got an array/],
  [{ pip: ['x'] }, /^runtimeEnv has no option pip; it has workingDir, envVars, execArgv/],
  [{ workingDir: 1 }, /^runtimeEnv\.workingDir must be a string, got 1/],
  [{ workingDir: '' }, /^runtimeEnv\.workingDir must be the path of a directory/],
  [{ envVars: { A: 1 } }, /^runtimeEnv\.envVars\.A must be a string, got 1/],
  [{ envVars: { A: undefined } }, /^runtimeEnv\.envVars\.A must be a string, got null/],
  [{ envVars: ['A=1'] }, /^runtimeEnv\.envVars must be an object, got an array/],
  [{ envVars: { 'A=B': '1' } }, /^runtimeEnv\.envVars has "A=B"/],
  [{ envVars: { '': '1' } }, /^runtimeEnv\.envVars has ""/],
  [{ envVars: { A: 'a\0b' } }, /^runtimeEnv\.envVars\.A must not contain a null character/],
  [{ execArgv: '--x' }, /^runtimeEnv\.execArgv must be a list of Node's flags, got "--x"/],
  [{ execArgv: [1] }, /^runtimeEnv\.execArgv\[0\] must be a string, got 1/],
  [{ execArgv: ['script.js'] }, /^runtimeEnv\.execArgv\[0\] must be a flag of Node/],
  [{ execArgv: ['--import=a', 'b'] }, /^runtimeEnv\.execArgv\[1\] must be a flag of Node/],
];

for (const [env, message] of wrong) {
  test.serial(`refused at once: ${JSON.stringify(env)}`, async (t) => {
    const runtimeEnv = env as RuntimeEnv;
    t.throws(() => remote(() => 1, { runtimeEnv }), { instanceOf: TypeError, message });
    t.throws(() => pid.options({ runtimeEnv }), { instanceOf: TypeError, message });
    await t.throwsAsync(init({ runtimeEnv }), { instanceOf: TypeError, message });
  });
}
