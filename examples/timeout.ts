/** A get that waits no longer than it was told to, whatever the task is doing. */

import { setTimeout as sleep } from 'node:timers/promises';
import { GetTimeoutError, init, remote, shutdown } from 'heliostat';

const slow = remote(async function slow(): Promise<number> {
  await sleep(10_000);
  return 42;
});

await init();

const answer = slow.remote();
const started = performance.now();
try {
  console.log(`the answer is ${await answer.get({ timeoutMs: 6_000 })}`);
} catch (error) {
  if (!(error instanceof GetTimeoutError)) throw error;
  console.log(`${error.name} after ${((performance.now() - started) / 1000).toFixed(1)} seconds: ${error.message}`);
}

await shutdown();
