import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, rmdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { eventually } from './support/cluster.js';

const LIMIT = 1 << 30;

interface Group {
  procs: string;
  remove(): Promise<void>;
}

/** A control group with a memory limit, of whichever version the machine has; undefined where none can be made. */
function makeGroup(): Group | undefined {
  const roots = [
    { root: '/sys/fs/cgroup/memory', limit: 'memory.limit_in_bytes' },
    { root: '/sys/fs/cgroup', limit: 'memory.max' },
  ];
  for (const { root, limit } of roots) {
    const path = join(root, `heliostat-test-${process.pid}`);
    try {
      mkdirSync(path);
      if (!existsSync(join(path, limit))) {
        rmdirSync(path);
        continue;
      }
      writeFileSync(join(path, limit), String(LIMIT));
      const remove = () =>
        eventually('the end of the group', () => {
          rmdirSync(path);
          return true;
        }).then(() => undefined);
      return { procs: join(path, 'cgroup.procs'), remove };
    } catch {
      // Not ours to make.
    }
  }
  return undefined;
}

test('a store larger than its control group says that it is full, and nobody is killed', async (t) => {
  const group = makeGroup();
  if (group === undefined) {
    // Needs the right to make control groups, which a continuous-integration run has.
    if (process.env['CI'] === 'true') t.fail('no control group can be made here');
    else t.log('left out: no control group can be made here');
    t.pass();
    return;
  }
  const fixture = fileURLToPath(new URL('fixtures/fill.mjs', import.meta.url));
  // The shell joins the group before it becomes the program, so that all of it is counted.
  const child = spawn('/bin/sh', ['-c', `echo $$ > ${group.procs} && exec "$0" "$1"`, process.execPath, fixture], {
    env: { ...process.env, TEST_TEMP_DIR: mkdtempSync(join(tmpdir(), 'heliostat-test-')) },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let out = '';
  child.stdout.on('data', (data) => (out += data));
  t.deepEqual(await once(child, 'close'), [0, null]);
  const result = JSON.parse(out) as { stored: number; code: string; message: string; first: number; small: number };
  t.is(result.code, 'OBJECT_STORE_FULL', out);
  t.true(result.stored >= 2 && result.stored * (50 << 20) < LIMIT, out);
  t.is(result.first, 0);
  t.is(result.small, 2, 'tasks go on');
  await group.remove();
});
