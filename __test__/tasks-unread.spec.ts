import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';

const PROGRAM = fileURLToPath(new URL('fixtures/unread.mjs', import.meta.url));

async function run(way: string): Promise<{ out: string; err: string; code: number | null }> {
  const child = spawn(process.execPath, [PROGRAM, way], {
    env: { ...process.env, TEST_TEMP_DIR: mkdtempSync(join(tmpdir(), 'heliostat-test-')) },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let [out, err] = ['', ''];
  child.stdout.on('data', (data) => (out += data));
  child.stderr.on('data', (data) => (err += data));
  const [code] = (await once(child, 'close')) as [number | null];
  return { out, err, code };
}

const LINE =
  /^heliostat: task fail\(\) failed and nobody read its result: fail\(\) failed \(pid=\d+, node=\w+\): RangeError: in vain\n$/;

for (const [way, what] of [
  ['dispose', 'of a reference that was disposed'],
  ['exit', 'of a reference that the program had at its end'],
  ['many', 'of a task with several references'],
]) {
  test(`the failure ${what} is told in one line`, async (t) => {
    const { err, code } = await run(way as string);
    t.regex(err, LINE);
    t.is(code, 0);
  });
}

test('the failure of a task of which nobody ever kept a reference is told, without escape sequences', async (t) => {
  const { err } = await run('forgotten');
  t.regex(err, /^heliostat: task fail\(\) failed and nobody read its result: [^\n]*RangeError: in\?\[2J vain\n$/);
});

test('who listens gets the error instead', async (t) => {
  const { out, err } = await run('listen');
  t.deepEqual(JSON.parse(out), { code: 'TASK_FAILED', cause: 'RangeError: in vain' });
  t.is(err, '');
});

test('what was read, here, by a dependant or by another process, is not told', async (t) => {
  const { out, err } = await run('read');
  t.is(err, '');
  t.is(out, 'seen\n');
});

test('an unfinished task does not keep the program, and is no failure', async (t) => {
  t.deepEqual(await run('unfinished'), { out: '', err: '', code: 0 });
});
