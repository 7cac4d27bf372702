/** From a worker's SIGKILL to the moment when its task begins again elsewhere. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { rename, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { getRuntimeContext, init, remote, shutdown, state } from 'heliostat';
import { median, quantile } from '../report.ts';
import { type Add, plain, withGoal } from './figures.ts';
import { pause } from './processes.ts';
import { count, expect } from './sizes.ts';

const KILLS = count(20, 2);
const GOAL = 100;

/** Says where it runs and stays; the second attempt says when it began, by the clock that all processes of a machine share. */
const stay = remote(async function stay(path: string) {
  const begun = process.hrtime.bigint();
  const { attempt } = getRuntimeContext();
  if (attempt > 0) return { attempt, begun, pid: process.pid };
  await writeFile(`${path}.part`, String(process.pid));
  await rename(`${path}.part`, path);
  return new Promise<never>(() => setInterval(() => {}, 1_000));
});

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await pause(5);
}

async function killOne(path: string): Promise<number> {
  const result = stay.remote(path);
  await until(() => existsSync(path));
  const victim = Number(readFileSync(path, 'utf8'));
  const killed = process.hrtime.bigint();
  process.kill(victim, 'SIGKILL');
  const { attempt, begun, pid } = await result.get();
  expect('the attempt', attempt, 1);
  expect('whether another process ran it', pid !== victim, true);
  return Number(begun - killed) / 1e6;
}

async function kills(numCpus: number): Promise<number[]> {
  const folder = mkdtempSync(join(tmpdir(), 'heliostat-bench-'));
  await init({ numCpus });
  const times: number[] = [];
  try {
    for (let i = 0; i < KILLS; i++) {
      await until(
        async () => (await state.listWorkers()).filter((worker) => worker.state === 'idle').length >= numCpus,
      );
      times.push(await killOne(join(folder, String(i))));
    }
  } finally {
    await shutdown();
    rmSync(folder, { recursive: true });
  }
  return times;
}

export async function measure(add: Add): Promise<void> {
  for (const [numCpus, name] of [
    [2, 'SIGKILL of a worker to the retry, another worker idle'],
    [1, 'SIGKILL of the only worker to the retry'],
  ] as const) {
    const times = await kills(numCpus);
    add(withGoal({ name, measured: median(times), unit: 'ms', better: 'less' }, GOAL));
    add(plain(`  the slowest of ${KILLS}`, quantile(times, 1), 'ms'));
  }
}
