/** Debuggers of workers, by Node's own client: a worker that is started for one, ports that do not collide. */
import { once } from 'node:events';
import { createServer } from 'node:net';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { start } from '../support/running.js';

const PROGRAM = fileURLToPath(new URL('../fixtures/debugged.mjs', import.meta.url));
const LISTENS = /\((\w+) pid=(\d+)\) Debugger listening on ws:\/\/127\.0\.0\.1:(\d+)\//g;

test('a worker under --inspect-brk waits for a debugger, and stops in its tasks', async (t) => {
  const program = start(t, dirname(PROGRAM), [PROGRAM], { TEST_FLAG: '--inspect-brk', TEST_TASKS: '1' });
  await program.sees(/Debugger listening on ws:\S+/);
  const [[, , , port]] = [...program.output().matchAll(LISTENS)] as [RegExpMatchArray];
  const debug = start(t, dirname(PROGRAM), ['inspect', `127.0.0.1:${port}`]);
  const say = (command: string) => debug.child.stdin?.write(`${command}\n`);
  // Before the worker's first line.
  await debug.sees(/Break on start in .*main\.cjs[\s\S]*debug> /);
  say('cont');
  await debug.sees(/break in .*debugged\.mjs:17[\s\S]*debug> /);
  say('exec scaled');
  await debug.sees(/6\s+debug> /);
  say('cont');
  await program.sees(/RESULT 7 of 1/);
  say('.exit');
  t.is((await once(program.child, 'exit'))[0], 0, program.output());
});

/** A port that was free a moment ago. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
}

for (const [what, flag] of [
  ['--inspect gives each worker a port', async () => '--inspect'],
  ['a named port is the first of the workers', async () => `--inspect=127.0.0.1:${await freePort()}`],
] as const) {
  test(`${what}: they do not collide`, async (t) => {
    const program = start(t, dirname(PROGRAM), [PROGRAM], { TEST_FLAG: await flag(), TEST_TASKS: '2' });
    t.is((await once(program.child, 'close'))[0], 0, program.output());
    t.regex(program.output(), /RESULT 7 10 of 2/);
    t.notRegex(program.output(), /address already in use/);
    const found = [...program.output().matchAll(LISTENS)];
    t.true(found.length >= 2, program.output());
    t.is(new Set(found.map(([, , , port]) => port)).size, found.length);
  });
}

test('workers do not ask for the debugger of their driver, which NODE_OPTIONS hands down', async (t) => {
  const env = { NODE_OPTIONS: `--inspect=127.0.0.1:${await freePort()} --stack-trace-limit=12`, TEST_TASKS: '2' };
  const program = start(t, dirname(PROGRAM), [PROGRAM], env);
  t.is((await once(program.child, 'close'))[0], 0, program.output());
  t.regex(program.output(), /RESULT 7 10 of 2/);
  t.is(program.output().match(/Debugger listening/g)?.length, 1, program.output());
  t.notRegex(program.output(), /address already in use/);
});
