import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import { get, init, NodeDiedError, put, remote, shutdown } from 'heliostat';
import { collectGarbage, descendants, descriptors, eventually } from '../support/cluster.js';
import { alive } from '../support/promises.js';

const OWNER = fileURLToPath(new URL('../fixtures/owner.mjs', import.meta.url));

interface Owner {
  child: ChildProcess;
  pid: number;
  address: string;
  workers: number[];
  tempDir: string;
}

/** A driver with 10^5 references, busy workers, and the node inside it. */
async function owner(): Promise<Owner> {
  const tempDir = mkdtempSync(join(tmpdir(), 'heliostat-test-'));
  const env = { ...process.env, TEST_TEMP_DIR: tempDir };
  const child = spawn(process.execPath, [OWNER], { env, stdio: ['ignore', 'pipe', 'inherit'] });
  let out = '';
  child.stdout?.on('data', (data) => (out += data));
  await eventually('its references', () => out.includes('\n') || child.exitCode !== null);
  const pid = child.pid as number;
  return { child, pid, address: out.trim(), workers: descendants(pid), tempDir };
}

async function kill({ child }: Owner): Promise<void> {
  const end = once(child, 'close');
  child.kill('SIGKILL');
  await end;
}

/** I4 as the system sees it: no process of the session lives, so that none holds its memory, which has no name. */
async function nothingIsLeft(of: Owner): Promise<void> {
  await eventually('the end of its workers', () => !of.workers.some(alive));
  // A directory without a living node is removed by the next one that starts there.
  const next = await init({ numCpus: 1, tempDir: of.tempDir, logToDriver: false });
  const sessions = dirname(dirname(next.address.slice('unix:'.length)));
  const left = readdirSync(sessions).filter((name) => name.startsWith('s-'));
  if (left.length !== 1) throw new Error(`sessions are left: ${left}`);
  await shutdown();
  if (existsSync(sessions) && readdirSync(sessions).some((name) => name.startsWith('s-'))) {
    throw new Error('the last session left its directory');
  }
}

test.serial('a killed driver with 100,000 references leaves no process, no memory and no file', async (t) => {
  const killed = await owner();
  t.true(killed.workers.length >= 2);
  await kill(killed);
  await nothingIsLeft(killed);
  t.pass();
});

test.serial('the death of the daemon is told at once to a process that had joined it', async (t) => {
  // Twice: what the first round opened for good is no leak.
  let before = Number.POSITIVE_INFINITY;
  for (let round = 0; round < 2; round += 1) {
    const killed = await joined(t);
    await shutdown();
    await nothingIsLeft(killed);
    await eventually(
      () => `descriptors as before, when views are garbage: ${descriptors(process.pid).join(' ')}`,
      async () => {
        await collectGarbage();
        return descriptors(process.pid).length <= before;
      },
    );
    before = descriptors(process.pid).length;
  }
});

/** The life of the process that joins. In a function of its own, so that nothing of it is held afterwards. */
async function joined(t: ExecutionContext): Promise<Owner> {
  const killed = await owner();
  await init({ address: killed.address });
  const large = put(new Uint8Array(300_000).fill(7));
  const view = await get(large);
  const never = remote(() => new Promise<number>(() => {}), { numCpus: 0 });
  const queued = remote(() => 1, { numCpus: 2 });
  const pending = [never.remote(), queued.remote()].map((ref) =>
    t.throwsAsync(get(ref), { instanceOf: NodeDiedError, code: 'NODE_DIED' }),
  );
  t.is(
    await remote((bytes: Uint8Array) => bytes[299_999], { numCpus: 0 })
      .remote(large)
      .get(),
    7,
  );
  await kill(killed);
  for (const error of await Promise.all(pending)) t.truthy(error?.hint);
  // What is called afterwards ends, too.
  await t.throwsAsync(get(queued.remote()), { instanceOf: NodeDiedError });
  t.true(
    view.every((byte) => byte === 7),
    'a view of the store stays as it was',
  );
  return killed;
}
