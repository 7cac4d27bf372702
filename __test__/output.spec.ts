/** What workers write, on its way to the driver's terminal and to the session's files. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import { eventually } from './support/cluster.js';

const PROGRAM = fileURLToPath(new URL('fixtures/lines.mjs', import.meta.url));

function start(t: ExecutionContext, mode: string, env: NodeJS.ProcessEnv = {}): { child: ChildProcess; file: string } {
  const file = join(mkdtempSync(join(tmpdir(), 'heliostat-test-')), 'here');
  const child = spawn(process.execPath, [PROGRAM], {
    env: { ...process.env, TEST_MODE: mode, TEST_FILE: file, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  t.teardown(() => child.kill('SIGKILL'));
  return { child, file };
}

/** Everything that a program writes until its end. */
async function run(t: ExecutionContext, mode: string, env?: NodeJS.ProcessEnv): Promise<{ out: Buffer; err: string }> {
  const { child } = start(t, mode, env);
  const [out, err]: [Buffer[], Buffer[]] = [[], []];
  child.stdout?.on('data', (data: Buffer) => out.push(data));
  child.stderr?.on('data', (data: Buffer) => err.push(data));
  const [code] = await once(child, 'close');
  t.is(code, 0, Buffer.concat(err).toString());
  return { out: Buffer.concat(out), err: Buffer.concat(err).toString() };
}

/** How many lines a line stands for. */
function count(line: string): number {
  return Number(/ \[repeated (\d+)x across workers\]$/.exec(line)?.[1] ?? 1);
}

test('what several workers write alike is counted, and nothing is lost or out of its order', async (t) => {
  const lines = (await run(t, 'same')).out.toString().trimEnd().split('\n');
  const same = lines.filter((line) => /^\(crowd pid=\d+\) the same/.test(line));
  t.is(
    same.map(count).reduce((sum, each) => sum + each),
    12,
  );
  t.true(
    same.some((line) => count(line) > 1),
    'folded',
  );
  t.true(same.length < 12);
  t.regex(same[0] ?? '', /the same$/, 'the first is shown as it is');
  for (let index = 0; index < 4; index += 1) {
    const own = lines.flatMap(
      (line) => line.match(new RegExp(`^\\(crowd pid=\\d+\\) own ${index} (\\d+)$`))?.[1] ?? [],
    );
    t.deepEqual(
      own,
      Array.from({ length: 50 }, (_, round) => String(round)),
    );
  }
});

test('HELIOSTAT_DEDUP_LOGS=0 shows each line', async (t) => {
  const { out } = await run(t, 'same', { HELIOSTAT_DEDUP_LOGS: '0' });
  t.is(out.toString().match(/\(crowd pid=\d+\) the same$/gm)?.length, 12);
});

test('what came twice is shown twice, where it came', async (t) => {
  const { out, err } = await run(t, 'twice', { TEST_CPUS: '2' });
  const [first, second] = (/PIDS (\d+) (\d+)/.exec(err) ?? []).slice(1);
  t.deepEqual(out.toString().trimEnd().split('\n'), [
    `(crowd pid=${first}) twice`,
    `(crowd pid=${second}) twice`,
    `(crowd pid=${second}) last`,
  ]);
});

test('workers write no faster than somebody reads, and every line arrives', async (t) => {
  const { child, file } = start(t, 'flood');
  const progress = () => (existsSync(file) ? readFileSync(file, 'utf8') : '');
  await eventually('lines', () => Number(progress()) > 0);
  // Nobody reads: 40 MB do not fit into pipes and the 4 MiB that may be on their way.
  let before = '';
  await eventually('a worker that waits', async () => {
    const now = progress();
    const waits = now === before;
    before = now;
    await new Promise((resolve) => setTimeout(resolve, 500));
    return waits;
  });
  t.true(Number(before) < 20_000, `it waits at line ${before}`);
  let next = 0;
  let rest = '';
  child.stdout?.setEncoding('utf8');
  child.stdout?.on('data', (data: string) => {
    const lines = (rest + data).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) {
      if (!new RegExp(`^\\(flood pid=\\d+\\) line ${next} x{1000}$`).test(line))
        t.fail(`line ${next}: ${line.slice(0, 80)}`);
      next += 1;
    }
  });
  t.is((await once(child, 'close'))[0], 0);
  t.is(next, 40_000);
  t.is(progress(), 'all');
});

test('long and binary lines, hostile names, and lines without an end', async (t) => {
  const { out, err } = await run(t, 'strange');
  const text = out.toString();
  const name = '(evil[2Jname pid=';
  t.true(text.includes(name) || text.includes('(evil[2J name pid='), text.slice(0, 200));
  const prefixes = text.match(/^\([^)]*\)/gm) ?? [];
  for (const prefix of prefixes) t.notRegex(prefix, /[\u0000-\u001f\u007f-\u009f\u202e]/);
  const pieces = text.split('\n').flatMap((line) => line.match(/^\([^)]*\) ((?:long )?é+(?: end)?)$/)?.[1] ?? []);
  t.is(pieces.join(''), `long ${'é'.repeat(100_000)} end`);
  t.true(pieces.length > 1 && pieces.every((piece) => Buffer.byteLength(piece) <= 64 * 1024));
  t.true(out.includes(Buffer.from([0x29, 0x20, 0xff, 0xfe, 0x00, 0x80, 0x0a])), 'bytes as they were');
  t.true(text.includes('\x1b[31mred\x1b[0m'), 'colours of lines stay');
  t.regex(text, /^\(last pid=\d+\) without an end$/m);
  t.regex(err, /^\(last pid=\d+\) neither has this$/m);
});

test('logToDriver: false shows nothing; the files of the session have it, until its end', async (t) => {
  const { out, err } = await run(t, 'quiet');
  t.is(out.toString(), '');
  const [, logs] = /^LOGS (\S+)\n$/.exec(err) ?? [];
  t.truthy(logs, err);
  t.false(existsSync(String(logs)));
});
