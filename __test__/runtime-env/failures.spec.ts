/** Environments that workers do not start for: said soon, to those alone who want them. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { remote, WorkerCrashedError } from 'heliostat';
import { eventually } from '../support/cluster.js';
import { alive, Promises, withWatchedCluster } from '../support/promises.js';
import { directory, refused } from './support.js';

withWatchedCluster(test);

const one = remote(() => 1);

for (const [what, execArgv, says] of [
  ['a flag that Node does not have', ['--no-such-flag'], /bad option: --no-such-flag/],
  ['a module that is not there', ['--import=./nowhere.mjs'], /nowhere\.mjs/],
  ['a program in place of the worker', ['--eval', 'process.exit(3)'], /exited with code 3/],
] as const) {
  test.serial(`${what}: tasks of that environment fail, and nothing else notices`, async (t) => {
    const promises = await Promises.begin(t);
    const bystander = promises.bystander();
    await bystander.goesOn();
    const bad = one.options({ runtimeEnv: { execArgv: [...execArgv] } });
    const errors = await Promise.all([bad.remote(), bad.remote(), bad.remote()].map((ref) => refused(t, ref)));
    for (const error of errors) {
      t.regex(error.message, says);
      t.regex(error.hint ?? '', /execArgv|flags of runtimeEnv/);
      t.true(error.cause instanceof WorkerCrashedError);
    }
    // It is tried again for those who come later, once each, and never for ever.
    await refused(t, bad.remote());
    await bystander.goesOn();
    await bystander.stop();
    await promises.keep();
  });
}

test.serial('a good environment is as good after a bad one', async (t) => {
  await refused(t, one.options({ runtimeEnv: { execArgv: ['--no-such-flag'] } }).remote());
  t.is(
    await one
      .options({ runtimeEnv: { execArgv: ['--no-warnings'] } })
      .remote()
      .get(),
    1,
  );
});

test.serial('NODE_OPTIONS that Node refuses are named', async (t) => {
  const error = await refused(t, one.options({ runtimeEnv: { envVars: { NODE_OPTIONS: '--no-such-flag' } } }).remote());
  t.regex(error.hint ?? '', /--no-such-flag/);
});

/** Sessions below a directory for temporary files, and what is in their packages. */
function sessions(tempDir: string): { path: string; packages: string[] }[] {
  const [base] = readdirSync(tempDir);
  if (base === undefined) return [];
  return readdirSync(join(tempDir, base)).map((name) => {
    const path = join(tempDir, base, name);
    const packages = join(path, 'packages');
    return { path, packages: existsSync(packages) ? readdirSync(packages) : [] };
  });
}

function program(tempDir: string, workingDir: string): { child: ChildProcess; err: () => string } {
  const file = fileURLToPath(new URL('../fixtures/working-dir.mjs', import.meta.url));
  const env = { ...process.env, TEST_TEMP_DIR: tempDir, TEST_WORKING_DIR: workingDir };
  const child = spawn(process.execPath, [file], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  let err = '';
  child.stderr.on('data', (data) => (err += data));
  return { child, err: () => err };
}

test.serial('a driver that is killed while it unpacks leaves nothing after the next start', async (t) => {
  const large = directory(Object.fromEntries(Array.from({ length: 24 }, (_, index) => [`${index}.bin`, ''])));
  for (const name of readdirSync(large)) truncateSync(join(large, name), 10 << 20);
  const tempDir = mkdtempSync(join(tmpdir(), 'heliostat-test-'));
  const halfway = () =>
    sessions(tempDir).some(({ packages }) => packages.some((name) => /^\.[0-9a-f]{64}\..*part$/.test(name)));
  await eventually('a kill in the middle of unpacking', async () => {
    const { child, err } = program(tempDir, large);
    const end = once(child, 'exit');
    while (!halfway() && child.exitCode === null) await new Promise((resolve) => setImmediate(resolve));
    child.kill('SIGKILL');
    await end;
    t.is(child.exitCode, null, err());
    return halfway();
  });
  const left = sessions(tempDir).map(({ path }) => path);
  t.true(left.length > 0);
  const next = program(tempDir, directory({ a: '' }));
  t.deepEqual(await once(next.child, 'exit'), [0, null], next.err());
  for (const path of left) t.false(existsSync(path), path);
  t.deepEqual(sessions(tempDir), [], 'and that one left nothing either');
});

test.serial('a driver that is killed leaves no worker of any environment', async (t) => {
  const tempDir = mkdtempSync(join(tmpdir(), 'heliostat-test-'));
  const { child } = program(tempDir, directory({ stay: '' }));
  let out = '';
  child.stdout?.on('data', (data) => (out += data));
  const pids = await eventually('its workers', () => /workers ([\d ]+)\n/.exec(out)?.[1]);
  child.kill('SIGKILL');
  await eventually('the end of its workers', () => !pids.split(' ').some((pid) => alive(Number(pid))));
  t.pass();
});
