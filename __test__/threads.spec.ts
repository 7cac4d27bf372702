/** Threads of a process share a membership, whichever begins it and whichever ends first. */
import { once } from 'node:events';
import { appendFileSync, mkdtempSync, readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import test from 'ava';
import { get, init, put, shutdown } from 'heliostat';
import { eventually } from './support/cluster.ts';

const MEMBER = fileURLToPath(new URL('fixtures/thread-member.mjs', import.meta.url));

class Member {
  readonly worker: Worker;

  constructor(tempDir: string, journal = '') {
    this.worker = new Worker(MEMBER, { workerData: { tempDir, journal } });
  }

  async ask(action: string): Promise<unknown> {
    this.worker.postMessage(action);
    const [{ value, error, code }] = await once(this.worker, 'message');
    if (error !== undefined) throw Object.assign(new Error(error), { code });
    return value;
  }
}

function sessions(tempDir: string): string[] {
  return readdirSync(tempDir).flatMap((name) => readdirSync(join(tempDir, name)));
}

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

const temp = () => mkdtempSync(join(tmpdir(), 'threads-'));

test.serial('the thread that began it may leave: the last one ends it, also when it is terminated', async (t) => {
  const dir = temp();
  const members = [new Member(dir), new Member(dir)] as const;
  const [one, other] = members;
  const ids = await Promise.all(members.map((member) => member.ask('init')));
  t.is(ids[0], ids[1], 'they start one node between them');
  t.is(await one.ask('task'), 2);
  await one.ask('shutdown');
  t.is(await other.ask('task'), 2);
  one.worker.postMessage('close');
  await once(one.worker, 'exit');
  t.is(await other.ask('task'), 2);
  const pids = (await other.ask('pids')) as number[];
  t.true(pids.length > 0);
  await other.worker.terminate();
  await eventually('the end of its workers', () => !pids.some(alive));
  t.deepEqual(sessions(dir), []);
});

test.serial('a thread that goes on after the main thread ended the session has none of its references', async (t) => {
  const options = { numCpus: 1, objectStoreMemory: 32 << 20, tempDir: temp() };
  await init(options);
  const member = new Member(options.tempDir);
  await member.ask('hold');
  t.is(await member.ask('read'), 'of the first session');
  await shutdown();
  await init(options);
  // Handles are small numbers: these have the same ones.
  const ended = { code: 'NOT_INITIALIZED' };
  const others = Array.from({ length: 10 }, (_, index) => put(index));
  await t.throwsAsync(member.ask('read'), ended);
  t.is(await member.ask('waited'), 'NOT_INITIALIZED');
  t.is(await member.ask('task'), 2, 'it has joined the next session');
  await t.throwsAsync(member.ask('read'), ended);
  t.deepEqual(await get(others), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  await member.worker.terminate();
  await shutdown();
});

test.serial('threads come and go at once', async (t) => {
  const dir = temp();
  const members = [new Member(dir), new Member(dir)];
  await Promise.all(members.map((member) => member.ask('rounds')));
  await eventually('the end of the last session', () => sessions(dir).length === 0);
  for (const member of members) await member.worker.terminate();
  t.pass();
});

test.serial('streams end with the thread that takes them, whether it leaves or is terminated', async (t) => {
  const dir = temp();
  const journal = join(temp(), 'journal');
  appendFileSync(journal, '');
  const [stays, leaves, dies] = [new Member(dir), new Member(dir, journal), new Member(dir, journal)] as const;
  await stays.ask('init');
  t.false(await leaves.ask('stream'));
  t.false(await dies.ask('stream'));
  await leaves.ask('shutdown');
  await dies.worker.terminate();
  await eventually('the ends of both makers', () => readFileSync(journal, 'utf8') === 'finally finally ');
  t.is(await stays.ask('task'), 2);
  await stays.ask('shutdown');
  for (const { worker } of [stays, leaves]) await worker.terminate();
});
