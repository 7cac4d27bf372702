import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';

const fixture = fileURLToPath(new URL('fixtures/spills.mjs', import.meta.url));

/** Runs the fixture: to its end, or until it has begun to spill and is killed. */
async function run(env: Record<string, string>, kill: boolean): Promise<[number | null, string | null]> {
  const child = spawn(process.execPath, [fixture], {
    env: { ...process.env, ...env, TEST_PUTS: kill ? '1000000' : '16' },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = once(child, 'close');
  if (kill) {
    for await (const chunk of child.stdout) if (/spilled [1-9]/.test(String(chunk))) break;
    child.kill('SIGKILL');
  } else child.stdout.resume();
  return (await ended) as [number | null, string | null];
}

function bytesBelow(dir: string): number {
  return readdirSync(dir, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .reduce((sum, entry) => sum + statSync(join(entry.parentPath, entry.name)).size, 0);
}

for (const where of ['the session', 'a directory of the user']) {
  test(`what a driver that is killed while it spills leaves in ${where} is gone after the next start`, async (t) => {
    const base = mkdtempSync(join(tmpdir(), 'heliostat-left-'));
    const env: Record<string, string> = { TEST_TEMP_DIR: join(base, 't') };
    mkdirSync(join(base, 't'));
    if (where !== 'the session') {
      env['TEST_SPILL_DIR'] = join(base, 'spill');
      mkdirSync(join(base, 'spill'));
    }
    for (let round = 0; round < 2; round += 1) {
      t.deepEqual(await run(env, true), [null, 'SIGKILL']);
      t.true(bytesBelow(base) > 1 << 20, 'it left something');
    }
    t.deepEqual(await run(env, false), [0, null]);
    t.is(bytesBelow(base), 0);
  });
}
