/** The debugger and coverage, by Node's own client and by c8: they see the program as if no function of it had been read. */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { start } from '../support/running.js';
import { modulesOf } from '../support/tools.js';
import { each, makeProject } from './support.js';

const PROGRAM = 'src/tools/program.mjs';

/** A line of the program, counted from 1, by its comment. */
function lines(dir: string, comment: string): number[] {
  const text = readFileSync(join(dir, PROGRAM), 'utf8').split('\n');
  return text.flatMap((line, index) => (line.includes(`// ${comment}`) ? [index + 1] : []));
}

/** What is counted of one file: how often each statement has run. */
interface Counts {
  statementMap: Record<string, { start: { line: number } }>;
  s: Record<string, number>;
}

each('a driver under --inspect-brk stops at breakpoints after its functions were sent', async (t) => {
  const { dir } = makeProject(t, 'module');
  const [line] = lines(dir, 'the driver stops here');
  const debug = start(t, dir, ['inspect', '--port=0', PROGRAM]);
  const say = (command: string) => debug.child.stdin?.write(`${command}\n`);
  await debug.sees(/Break on start.*[\s\S]*debug> /);
  say(`setBreakpoint('program.mjs', ${line})`);
  await debug.sees(/debug> /);
  say('cont');
  await debug.sees(new RegExp(`break in ${PROGRAM}:${line}[\\s\\S]*debug> `));
  say('exec [first, second].join("/")');
  await debug.sees(/'6\/3'\s+debug> /);
  say('cont');
  await debug.sees(/RESULT 6 3 function/);
  say('.exit');
  await once(debug.child, 'exit');
  t.pass();
});

each('a chosen worker stops at the debugger statements of the functions it runs', async (t) => {
  const { dir } = makeProject(t, 'module');
  const program = start(t, dir, ['src/tools/worker.mjs']);
  await program.sees(/OPEN ws:\S+ /);
  const [, address] = /OPEN ws:\/\/([\d.]+:\d+)/.exec(program.output()) ?? [];
  const debug = start(t, dir, ['inspect', String(address)]);
  const say = (command: string) => debug.child.stdin?.write(`${command}\n`);
  await debug.sees(/debug> /);
  await program.sees(/ATTACHED/);
  program.child.stdin?.write('\n');
  // Its own line of the source.
  await debug.sees(/break in .*worker\.mjs:11[\s\S]*debug> /);
  say('exec scaled');
  await debug.sees(/6\s+debug> /);
  say('cont');
  await program.sees(/RESULT 7/);
  say('.exit');
  t.is((await once(program.child, 'exit'))[0], 0);
});

each('c8 counts what has run in the driver, and nothing else', async (t) => {
  const { dir } = makeProject(t, 'module');
  const c8 = [
    join(modulesOf('compilers'), 'c8/bin/c8.js'),
    '--reporter=json',
    '--include=src/**',
    process.execPath,
    PROGRAM,
  ];
  const counted = start(t, dir, c8);
  const [code] = await once(counted.child, 'close');
  t.is(code, 0, counted.output());
  t.regex(counted.output(), /RESULT 6 3 function/);
  const report = JSON.parse(readFileSync(join(dir, 'coverage/coverage-final.json'), 'utf8')) as Record<string, Counts>;
  const [counts] = Object.entries(report).flatMap(([file, each]) => (file.endsWith(PROGRAM) ? [each] : []));
  const uncovered = Object.entries(counts?.s ?? {}).flatMap(([id, count]) =>
    count === 0 ? [counts?.statementMap[id]?.start.line] : [],
  );
  for (const line of lines(dir, 'never reached')) t.true(uncovered.includes(line), `${line}: never reached`);
  for (const line of lines(dir, 'in a worker')) t.true(uncovered.includes(line), `${line}: in a worker`);
  for (const line of lines(dir, 'the driver stops here')) t.false(uncovered.includes(line), `${line}: it has run`);
});
