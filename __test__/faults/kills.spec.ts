import test from 'ava';
import { get, type ObjectRef, put, remote, state } from 'heliostat';
import { eventually, killed, workerPids } from '../support/cluster.js';
import { alive, Promises, withWatchedCluster } from '../support/promises.js';

withWatchedCluster(test);

const ROUNDS = Number(process.env['HELIOSTAT_KILLS'] ?? 25);

/** Kills one worker, if there is one. */
async function killOne(random: number): Promise<void> {
  const pids = await workerPids();
  const pid = pids[Math.floor(random * pids.length)];
  if (pid !== undefined && pid > 0) killed(pid);
}

/** One round in a function of its own, so that nothing of it is held afterwards. */
async function round(seed: number): Promise<void> {
  const input = put(new Uint8Array(200_000).fill(seed));
  const work = remote(
    async (data: Uint8Array, index: number) => {
      await new Promise((resolve) => setTimeout(resolve, 2));
      const result = new Uint8Array(150_000).fill(data[index] as number);
      return { result, index };
    },
    { maxRetries: -1 },
  );
  const refs = Array.from({ length: 12 }, (_, i) => work.remote(input, i));
  const killing = (async () => {
    await new Promise((resolve) => setTimeout(resolve, seed % 30));
    await killOne((seed * 0.618) % 1);
  })();
  for (const [index, { result, index: told }] of (await get(refs)).entries()) {
    if (told !== index || !result.every((byte) => byte === seed)) throw new Error(`wrong bytes in round ${seed}`);
  }
  await killing;
}

test.serial(`workers killed at ${ROUNDS} moments: every result is right, nothing is lost or left`, async (t) => {
  const promises = await Promises.begin(t);
  for (let seed = 1; seed <= ROUNDS; seed += 1) await round(seed);
  await promises.keep();
});

test.serial('a stopped worker holds nobody else up', async (t) => {
  const promises = await Promises.begin(t);
  const pidOf = remote(() => process.pid);
  const stopped = await pidOf.remote().get();
  process.kill(stopped, 'SIGSTOP');
  try {
    const kept = put(new Uint8Array(500_000).fill(3));
    t.is((await get(kept))[1], 3);
    const refs = Array.from({ length: 30 }, () => remote((data: Uint8Array) => [process.pid, data[0]]).remote(kept));
    const others = await eventually('tasks on other workers', async () => {
      const done: [number, number][] = [];
      for (const ref of refs) {
        try {
          done.push((await get(ref, { timeoutMs: 50 })) as [number, number]);
        } catch {
          // With the stopped worker.
        }
      }
      return done.length > 0 ? done : undefined;
    });
    t.true(others.every(([pid, byte]) => pid !== stopped && byte === 3));
    t.true((await state.memory()).used > 0, 'the daemon answers');
  } finally {
    process.kill(stopped, 'SIGCONT');
  }
  t.is(await pidOf.remote().get().then(Number.isInteger), true);
  await promises.keep();
});

test.serial('a stopped worker that is killed loses its task to another', async (t) => {
  const promises = await Promises.begin(t);
  const slow = remote(
    async () => {
      await new Promise((resolve) => setTimeout(resolve, 300));
      return process.pid;
    },
    { maxRetries: 1 },
  );
  const ref = slow.remote();
  const busy = await eventually('a busy worker', async () => {
    return (await state.listWorkers()).find((worker) => worker.state === 'busy')?.pid;
  });
  process.kill(busy, 'SIGSTOP');
  process.kill(busy, 'SIGKILL');
  t.not(await ref.get(), busy);
  await promises.keep();
});

test.serial('a worker that ends while it holds references gives them up', async (t) => {
  const promises = await Promises.begin(t);
  const holder = remote((box: { refs: ObjectRef<Uint8Array>[] }) => {
    (globalThis as { held?: unknown }).held = box.refs;
    return process.pid;
  });
  const hold = async () =>
    holder.remote({ refs: Array.from({ length: 20 }, () => put(new Uint8Array(150_000))) }).get();
  const pid = await hold();
  await eventually('the references are the worker’s alone', async () => (await state.memory()).used > 0);
  process.kill(pid, 'SIGKILL');
  await promises.keep();
});

test.serial('programs that a task started end with the session', async (t) => {
  const promises = await Promises.begin(t);
  const spawner = remote(async () => {
    const { spawn } = await import('node:child_process');
    const child = spawn('sleep', ['0.05']);
    await new Promise((resolve) => child.once('close', resolve));
    return child.pid;
  });
  const pid = await spawner.remote().get();
  t.false(alive(pid as number));
  await promises.keep();
});
