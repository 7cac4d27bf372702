/** Threads of a process share a membership, whichever begins it and whichever ends first. */
import { once } from 'node:events';
import { mkdtempSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import test from 'ava';
import { eventually } from './support/cluster.ts';

const MEMBER = fileURLToPath(new URL('fixtures/thread-member.mjs', import.meta.url));

class Member {
  readonly worker: Worker;

  constructor(tempDir: string) {
    this.worker = new Worker(MEMBER, { workerData: { tempDir } });
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
