/** The package under the test runners that people use: values and errors of the caller's realm, tasks, restarts. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { eventually } from '../support/cluster.ts';
import { installed, type Project, run, type Setup, sessions, start } from './support.ts';

/** Tests in values.test.js, tasks.test.js and forgetful.test.js. */
const TESTS = 21;

const vitest = (...options: string[]): Setup => ({
  runner: 'vitest',
  arguments: [...options],
  extension: 'ts',
  type: 'module',
  without: ['copies.test.js'],
});
const jest = (...options: string[]): Setup => ({
  runner: 'jest',
  arguments: options,
  extension: 'js',
  type: 'commonjs',
  without: ['mocked.test.js'],
});

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

async function nothingLeft(t: ExecutionContext, project: Project): Promise<void> {
  const pids = JSON.parse(readFileSync(join(project.dir, 'pids.json'), 'utf8')) as number[];
  t.true(pids.length > 0);
  await eventually(`the end of the workers ${pids}`, () => !pids.some(alive));
}

async function passes(t: ExecutionContext, setup: Setup, tests: number): Promise<Project> {
  const project = start(t, setup);
  const code = await project.end;
  const [result] = project.runs();
  t.deepEqual(result, { passed: tests, failures: [] }, project.output());
  t.is(code, 0, project.output());
  await nothingLeft(t, project);
  return project;
}

/** Runs the tests, changes a file, and takes the second run, in the same processes. */
async function passesAgain(t: ExecutionContext, setup: Setup, tests: number): Promise<void> {
  const project = start(t, setup);
  t.deepEqual(await run(project, 1), { passed: tests, failures: [] }, project.output());
  for (const name of ['values.test', 'tasks.test']) {
    const file = join(project.dir, `${name}.${setup.extension}`);
    writeFileSync(file, `${readFileSync(file, 'utf8')}\n// changed\n`);
  }
  t.deepEqual((await run(project, 2)).failures, [], project.output());
  t.deepEqual(sessions(project), [], 'every file has ended its session');
}

const each = installed || process.env['CI'] === 'true' ? test.serial : test.serial.skip;
if (!installed) console.log('the test runners are not installed: `node scripts/fetch.mjs runners` does it');

for (const pool of ['forks', 'threads', 'vmThreads']) {
  each(`vitest, pool ${pool}`, async (t) => {
    await passes(t, vitest('run', `--pool=${pool}`), TESTS + 2);
  });
}

each('vitest watches: a second run in the same process', async (t) => {
  const setup = vitest('--watch', '--pool=threads');
  await passesAgain(t, { ...setup, without: ['copies.test.js', 'forgetful.test.js'] }, TESTS + 1);
});

each('jest in its CommonJS mode, with coverage', async (t) => {
  await passes(t, jest('--coverage'), TESTS + 1);
});

each('jest in its CommonJS mode, one process for all files', async (t) => {
  const project = await passes(t, jest('--runInBand'), TESTS + 1);
  t.deepEqual(sessions(project), []);
});

each('jest watches: a second run in the same process', async (t) => {
  await passesAgain(
    t,
    { ...jest('--watchAll', '--runInBand'), without: ['forgetful.test.js', 'mocked.test.js'] },
    TESTS,
  );
});

each('jest with ts-jest', async (t) => {
  const transform = JSON.stringify({ '\\.ts$': ['ts-jest', { diagnostics: false }] });
  await passes(t, { ...jest(), extension: 'ts', env: { JEST_TRANSFORM: transform } }, TESTS + 1);
});

each('jest with --experimental-vm-modules', async (t) => {
  const env = { NODE_OPTIONS: '--experimental-vm-modules --no-warnings', JEST_TRANSFORM: '{}' };
  await passes(t, { ...jest(), type: 'module', env, without: ['copies.test.js', 'mocked.test.js'] }, TESTS);
});
