/**
 * What a program would use instead of Heliostat to run a function elsewhere: four pools, and messages by hand to threads and to
 * processes. Each has two workers and the options that its authors give by default. The pools are installed in this folder alone, so
 * that who uses Heliostat doesn't install them; their types are what is needed here.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';

export const WORKERS = 2;

/** One who runs the function that gives back its argument. */
export interface Contestant {
  readonly name: string;
  call(value?: number): Promise<number | undefined>;
  /** The same for many values at once. */
  calls(values: readonly (number | undefined)[]): Promise<(number | undefined)[]>;
  end(): Promise<unknown>;
}

type Call = Contestant['call'];

function contestant(name: string, call: Call, end: () => Promise<unknown>): Contestant {
  return { name, call, end, calls: (values) => Promise.all(values.map((value) => call(value))) };
}

const file = (name: string) => new URL(name, import.meta.url);
const path = (name: string) => fileURLToPath(file(name));

/** A pool's module; its name stays out of the compiler's sight, which would look for it where it is not installed. */
async function load(name: string): Promise<{ module: any; title: string }> {
  let manifest: string;
  try {
    manifest = readFileSync(file(`node_modules/${name}/package.json`), 'utf8');
  } catch (cause) {
    throw new Error(`${name} is not installed: \`npm run bench -- tasks\` does that`, { cause });
  }
  return { module: await import(name), title: `${name} ${JSON.parse(manifest).version}` };
}

async function piscina(): Promise<Contestant> {
  const { module, title } = await load('piscina');
  const limits = { minThreads: WORKERS, maxThreads: WORKERS, execArgv: [] };
  const pool = new module.Piscina({ filename: path('function.mjs'), ...limits });
  return contestant(
    title,
    (value) => pool.run(value),
    () => pool.destroy(),
  );
}

async function tinypool(): Promise<Contestant> {
  const { module, title } = await load('tinypool');
  const limits = { minThreads: WORKERS, maxThreads: WORKERS, execArgv: [] };
  const pool = new module.Tinypool({ filename: file('function.mjs').href, ...limits });
  return contestant(
    title,
    (value) => pool.run(value),
    () => pool.destroy(),
  );
}

async function workerpool(): Promise<Contestant> {
  const { module, title } = await load('workerpool');
  const limits = { minWorkers: WORKERS, maxWorkers: WORKERS };
  const threads = { workerType: 'thread', workerThreadOpts: { execArgv: [] } };
  const pool = module.default.pool(path('workerpool.mjs'), { ...limits, ...threads });
  return contestant(
    `${title}, threads`,
    (value) => pool.exec('echo', [value]),
    () => pool.terminate(),
  );
}

async function poolifier(): Promise<Contestant> {
  const { module, title } = await load('poolifier');
  const pool = new module.FixedThreadPool(WORKERS, path('poolifier.mjs'), { workerOptions: { execArgv: [] } });
  return contestant(
    title,
    (value) => pool.execute(value),
    () => pool.destroy(),
  );
}

/** Messages by hand: a number on each, and workers in turn. */
function byHand(sends: ((message: [number, number?]) => void)[]) {
  const pending = new Map<number, (value?: number) => void>();
  let last = 0;
  return {
    call: (value?: number) =>
      new Promise<number | undefined>((resolve) => {
        last += 1;
        pending.set(last, resolve);
        sends[last % sends.length]?.(value === undefined ? [last] : [last, value]);
      }),
    onMessage([id, value]: [number, number?]) {
      pending.get(id)?.(value);
      pending.delete(id);
    },
  };
}

async function threads(): Promise<Contestant> {
  const workers = Array.from({ length: WORKERS }, () => new Worker(file('thread.mjs'), { execArgv: [] }));
  await Promise.all(workers.map((worker) => once(worker, 'online')));
  const { call, onMessage } = byHand(workers.map((worker) => (message) => worker.postMessage(message)));
  for (const worker of workers) worker.on('message', onMessage);
  return contestant('worker_threads, messages', call, () => Promise.all(workers.map((worker) => worker.terminate())));
}

async function children(): Promise<Contestant> {
  const workers: ChildProcess[] = Array.from({ length: WORKERS }, () =>
    fork(path('child.mjs'), { execArgv: [], serialization: 'advanced' }),
  );
  const { call, onMessage } = byHand(workers.map((worker) => (message) => worker.send(message)));
  for (const worker of workers) worker.on('message', onMessage);
  return contestant('child_process.fork, advanced', call, () =>
    Promise.all(
      workers.map((worker) => {
        const exit = once(worker, 'exit');
        worker.disconnect();
        return exit;
      }),
    ),
  );
}

/** All of them, started. */
export async function startContestants(): Promise<Record<'piscina' | 'threads', Contestant> & { all: Contestant[] }> {
  const [first, bare] = [await piscina(), await threads()];
  return {
    piscina: first,
    threads: bare,
    all: [first, await tinypool(), await workerpool(), await poolifier(), bare, await children()],
  };
}
