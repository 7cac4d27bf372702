/** Threads of a process share a membership, whichever begins it and whichever ends first. */
import { once } from 'node:events';
import { appendFileSync, mkdtempSync, readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import test from 'ava';
import { eventually } from './support/cluster.ts';

const MEMBER = fileURLToPath(new URL('fixtures/thread-member.mjs', import.meta.url));

class Member {
  readonly worker: Worker;

  constructor(tempDir: string, journal = '') {
    this.worker = new Worker(MEMBER, { workerData: { tempDir, journal } });
  }

  async ask(action: string): Promise<unknown> {
    this.worker.postMessage(action);
    const [{ value, error }] = await once(this.worker, 'message');
    if (error !== undefined) throw new Error(error);
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
