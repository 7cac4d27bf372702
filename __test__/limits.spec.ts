import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import { eventually } from './support/cluster.js';

const LIMIT = 1 << 30;

interface Group {
  procs: string;
  /** Bytes in use, without what the kernel can take back from the page cache. */
  used(): number;
  setLimit(bytes: number): void;
  remove(): Promise<void>;
}

/** A control group with a memory limit, of whichever version the machine has; undefined where none can be made. */
function makeGroup(name: string): Group | undefined {
  const roots = [
    { root: '/sys/fs/cgroup/memory', limit: 'memory.limit_in_bytes', usage: 'memory.usage_in_bytes', prefix: 'total_' },
    { root: '/sys/fs/cgroup', limit: 'memory.max', usage: 'memory.current', prefix: '' },
  ];
  for (const { root, limit, usage, prefix } of roots) {
    const path = join(root, `heliostat-test-${name}-${process.pid}`);
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
      const setLimit = (bytes: number) => writeFileSync(join(path, limit), String(bytes));
      const used = () => {
        const cached = new RegExp(`^${prefix}inactive_file (\\d+)$`, 'm').exec(
          readFileSync(join(path, 'memory.stat'), 'utf8'),
        );
        return Number(readFileSync(join(path, usage), 'utf8')) - Number(cached?.[1]);
      };
      return { procs: join(path, 'cgroup.procs'), used, setLimit, remove };
    } catch {
      // Not ours to make.
    }
  }
  return undefined;
}

/** Needs the right to make control groups, which a continuous-integration run has. */
function leaveOut(t: ExecutionContext): void {
  if (process.env['CI'] === 'true') t.fail('no control group can be made here');
  else t.log('left out: no control group can be made here');
  t.pass();
}

/** Starts a program inside of a group. */
function inGroup(group: Group, name: string, env: Record<string, string> = {}) {
  const fixture = fileURLToPath(new URL(`fixtures/${name}`, import.meta.url));
  // The shell joins the group before it becomes the program, so that all of it is counted.
  return spawn('/bin/sh', ['-c', `echo $$ > ${group.procs} && exec "$0" "$1"`, process.execPath, fixture], {
    env: { ...process.env, TEST_TEMP_DIR: mkdtempSync(join(tmpdir(), 'heliostat-test-')), ...env },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
}

test('a store larger than its control group says that it is full, and nobody is killed', async (t) => {
  const group = makeGroup('fill');
  if (group === undefined) return leaveOut(t);
  const child = inGroup(group, 'fill.mjs');
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

test('a task that takes all memory fails with the figures; one with a view of the store and a small one go on', async (t) => {
  const group = makeGroup('hungry');
  if (group === undefined) return leaveOut(t);
  const journal = join(mkdtempSync(join(tmpdir(), 'heliostat-test-')), 'journal');
  writeFileSync(journal, '');
  const child = inGroup(group, 'hungry.mjs', { TEST_JOURNAL: journal });
  let out = '';
  child.stdout.on('data', (data) => (out += data));
  const end = once(child, 'close');
  await eventually('tasks that run', () => out.includes('ready') || child.exitCode !== null);
  // Room for workers that take an ended one's place, and not for 200 MiB.
  group.setLimit(group.used() + (170 << 20));
  child.stdin.write('go\n');
  t.deepEqual(await end, [0, null], out);
  const result = JSON.parse(out.split('\n')[1] as string) as {
    failure: { name: string; code: string; message: string; hint: string };
    fine: boolean;
    sum: number;
    after: number;
    drafts: number;
  };
  const { failure, ...others } = result;
  t.deepEqual(others, { fine: true, sum: 3 * ((150 << 20) / 4096), after: 2, drafts: 0 });
  t.is(failure.name, 'OutOfMemoryError', failure.message);
  t.is(failure.code, 'OUT_OF_MEMORY');
  const told =
    /^hungry\(\) ran out of memory in attempt 1: the (?:node ended|kernel killed) worker pid=\d+.*? (\d+) MiB of its own.* (\d+) MiB of (\d+) MiB were used \(the limit of control group \S*heliostat-test-hungry-\d+\), \d+ MiB were left/;
  const [own, used, limit] = (told.exec(failure.message) ?? t.fail(failure.message) ?? []).slice(1).map(Number);
  t.true(100 < Number(own) && Number(own) < Number(used) && Number(used) <= Number(limit), failure.message);
  t.regex(failure.hint, /`memory`/);
  const executions = readFileSync(journal, 'utf8').split('\n').filter(Boolean).sort();
  t.deepEqual(
    executions,
    ['hungry', 'hungry', 'innocent', 'over', 'viewer'],
    'a retry of one, and nobody else began anew',
  );
  await group.remove();
});
