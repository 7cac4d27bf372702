import { appendFileSync, mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import {
  cancel,
  getRuntimeContext,
  type ObjectRef,
  type ObjectRefGenerator,
  remote,
  state,
  TaskCancelledError,
  TaskTimeoutError,
} from 'heliostat';
import { collectGarbage, eventually, storeIsEmpty, withCluster, workerPids } from '../support/cluster.js';

withCluster(test);

const cancelled = { instanceOf: TaskCancelledError, code: 'TASK_CANCELLED' } as const;
const idle = () =>
  eventually('idle workers', async () => (await state.listWorkers()).every((worker) => worker.state === 'idle'));

function journal(): string {
  const file = join(mkdtempSync(join(tmpdir(), 'heliostat-test-')), 'journal');
  appendFileSync(file, '');
  return file;
}
const text = (file: string) => readFileSync(file, 'utf8');

/** Makers without an end, which say when they ended, in each place where one can be. */
const makers = {
  'a synchronous generator that waits for room': remote(function* endless(file: string) {
    try {
      for (let i = 0; ; i += 1) yield i;
    } finally {
      appendFileSync(file, `finally ${getRuntimeContext().signal.reason.code} `);
    }
  }),
  'a synchronous generator at work': remote(function* endless(file: string) {
    try {
      for (let i = 0; ; i += 1) {
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);
        yield i;
      }
    } finally {
      appendFileSync(file, `finally ${getRuntimeContext().signal.reason.code} `);
    }
  }),
  'an asynchronous generator that waits for room': remote(async function* endless(file: string) {
    try {
      for (let i = 0; ; i += 1) yield i;
    } finally {
      await null;
      appendFileSync(file, `finally ${getRuntimeContext().signal.reason.code} `);
    }
  }),
  'an asynchronous generator at work': remote(async function* endless(file: string) {
    try {
      for (let i = 0; ; i += 1) {
        await new Promise((resolve) => setTimeout(resolve, 20));
        yield i;
      }
    } finally {
      appendFileSync(file, `finally ${getRuntimeContext().signal.reason.code} `);
    }
  }),
  'an asynchronous generator that heeds its signal': remote(async function* endless(file: string) {
    const { signal } = getRuntimeContext();
    try {
      for (let i = 0; i < 3; i += 1) yield i;
      await new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
    } finally {
      appendFileSync(file, `finally ${signal.reason.code} `);
    }
  }),
};

const ways: Record<string, (generator: ObjectRefGenerator<number>) => Promise<unknown>> = {
  async 'leaving the loop'(generator) {
    for await (const ref of generator) {
      if ((await ref.get()) === 2) break;
    }
  },
  async 'an error in the loop'(generator) {
    try {
      for await (const _ of generator) throw new RangeError('mine');
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
    }
  },
  async 'leaving the loop over values()'(generator) {
    for await (const value of generator.values()) if (value === 1) break;
  },
  async 'return()'(generator) {
    await generator.next();
    const result = await generator.return('given');
    if (result.value !== 'given' || !result.done) throw new Error('return() gives what it was given');
  },
  async 'throw()'(generator) {
    await generator.next();
    const error = await generator.throw(new RangeError('mine')).catch((thrown) => thrown);
    if (!(error instanceof RangeError)) throw error;
  },
  async 'await using'(generator) {
    await using own = generator;
    await own.next();
  },
};

for (const [kind, maker] of Object.entries(makers)) {
  for (const [way, leave] of Object.entries(ways)) {
    test.serial(`${way} ends ${kind}`, async (t) => {
      const file = journal();
      await idle();
      const before = await workerPids();
      const generator = maker.remote(file);
      await leave(generator);
      t.deepEqual(await generator.next().then(({ done }) => done), true);
      await t.throwsAsync(generator.completed.get(), cancelled);
      await eventually('its finally block', () => text(file) !== '');
      await idle();
      t.is(text(file), 'finally TASK_CANCELLED ', 'once, and it knows why');
      for (const pid of before) t.true((await workerPids()).includes(pid), 'no worker was ended for it');
    });
  }

  test.serial(`cancel() ends ${kind}`, async (t) => {
    const file = journal();
    const generator = maker.remote(file);
    const first = (await generator.next()).value as ObjectRef<number>;
    await cancel(generator);
    await t.throwsAsync(generator.completed.get(), cancelled);
    const values: number[] = [];
    await t.throwsAsync(async () => {
      for await (const value of generator.values()) values.push(value);
    }, cancelled);
    t.true(
      values.every((value, index) => value === index + 1),
      'what was made before is there',
    );
    t.is(await first.get(), 0);
    t.true((await generator.next()).done);
    await eventually('its finally block', () => text(file) !== '');
    await idle();
  });
}

test.serial('a pending next() ends with return(), without an item', async (t) => {
  const never = remote(async function* never() {
    await new Promise((resolve) => getRuntimeContext().signal.addEventListener('abort', resolve));
    yield 1;
  });
  const generator = never.remote();
  const pending = [generator.next(), generator.next()];
  await generator.return();
  t.deepEqual(await Promise.all(pending), [
    { done: true, value: undefined },
    { done: true, value: undefined },
  ]);
  await idle();
});

test.serial('a pending next() of a cancelled stream gets the failure', async (t) => {
  const never = remote(async function* never() {
    await new Promise((resolve) => getRuntimeContext().signal.addEventListener('abort', resolve));
    yield 1;
  });
  const generator = never.remote();
  const pending = generator.next();
  await cancel(generator.completed);
  const { value } = await pending;
  await t.throwsAsync((value as ObjectRef).get(), cancelled);
  t.true((await generator.next()).done);
  await idle();
});

test.serial('a stream that has ended is not cancelled by leaving it', async (t) => {
  const generator = remote(function* few() {
    yield 1;
    yield 2;
  }).remote();
  await generator.completed.get();
  await cancel(generator);
  t.is(await (await generator.next()).value?.get(), 1);
  await generator.return();
  t.is(await generator.completed.get(), undefined);
  t.true((await generator.next()).done);
});

test.serial('a generator that is garbage is cancelled, and its items go', async (t) => {
  const file = journal();
  await (async () => {
    await makers['a synchronous generator that waits for room'].remote(file).next();
  })();
  await eventually('its finally block', async () => {
    await collectGarbage();
    return text(file) !== '';
  });
  await idle();
  await storeIsEmpty();
  t.pass();
});

test.serial('a generator with a pending next() is not garbage', async (t) => {
  const slow = remote(async function* slow() {
    await new Promise((resolve) => setTimeout(resolve, 300));
    yield 'here';
  });
  const pending = slow.remote().next();
  for (let round = 0; round < 10; round += 1) await collectGarbage();
  t.is(await (await pending).value?.get(), 'here');
});

test.serial('force kills the maker, and only that', async (t) => {
  const file = journal();
  const stuck = remote(function* stuck(own: string) {
    yield process.pid;
    appendFileSync(own, 'stuck');
    for (;;);
  });
  const generator = stuck.options({ bufferedItems: 2 }).remote(file);
  const pid = (await (await generator.next()).value?.get()) as number;
  await eventually('a loop without an end', () => text(file) === 'stuck');
  await cancel(generator, { force: true });
  await t.throwsAsync(generator.completed.get(), cancelled);
  await eventually('its end', async () => !(await workerPids()).includes(pid));
  await idle();
});

test.serial('a signal cancels the stream, also one that was aborted before', async (t) => {
  const controller = new AbortController();
  const maker = makers['a synchronous generator that waits for room'].options({ signal: controller.signal });
  const file = journal();
  const generator = maker.remote(file);
  await generator.next();
  controller.abort();
  await t.throwsAsync(generator.completed.get(), cancelled);
  await eventually('its finally block', () => text(file) !== '');
  const late = maker.remote(file);
  await t.throwsAsync((await late.next()).value?.get() as Promise<number>, cancelled);
  t.true((await late.next()).done);
  await idle();
});

test.serial('timeoutMs bounds the whole run', async (t) => {
  const slow = remote(
    async function* slow() {
      for (let i = 0; ; i += 1) {
        yield i;
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
    },
    { timeoutMs: 100 },
  );
  const values: number[] = [];
  await t.throwsAsync(
    async () => {
      for await (const value of slow.remote().values()) values.push(value);
    },
    { instanceOf: TaskTimeoutError, message: /slow\(\) ran longer than 100 ms/ },
  );
  t.true(values.length > 0 && values.every((value, index) => value === index));
  await idle();
});

test.serial('an asynchronous generator that goes on after its signal aborted ends with its worker', async (t) => {
  const deaf = remote(async function* deaf() {
    yield process.pid;
    await new Promise(() => setInterval(() => {}, 1000));
  });
  const generator = deaf.remote();
  const pid = (await (await generator.next()).value?.get()) as number;
  await generator.return();
  await eventually('the end of its worker', async () => !(await workerPids()).includes(pid));
  await idle();
  t.pass();
});

test.serial('a cancelled task waits no longer for items, and takes the tasks along that make them', async (t) => {
  const file = journal();
  const inner = makers['a synchronous generator that waits for room'];
  const outer = remote(async function* outer(own: string) {
    const source = inner.remote(own);
    yield await (await source.next()).value?.get();
    // Of a stream that never gives an item.
    const pending = remote(async function* never() {
      await new Promise((resolve) => getRuntimeContext().signal.addEventListener('abort', resolve));
    })
      .remote()
      .next();
    appendFileSync(own, 'waits ');
    try {
      await pending;
    } catch (error) {
      appendFileSync(own, `outer ${(error as { code: string }).code} `);
      throw error;
    }
  });
  const generator = outer.options({ numCpus: 0 }).remote(file);
  t.is(await (await generator.next()).value?.get(), 0);
  await eventually('a task that waits', () => text(file).includes('waits'));
  await generator.return();
  await eventually('both ends', () => text(file).includes('outer TASK_CANCELLED') && text(file).includes('finally'));
  await idle();
});
