import { execFile } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import test, { type ExecutionContext } from 'ava';
import { nodeOf, testWith } from '../support/tools.js';
import { VALUES } from './support/peer.js';

const run = promisify(execFile);
const support = fileURLToPath(new URL('./support/', import.meta.url));
const tsx = pathToFileURL(fileURLToPath(import.meta.resolve('tsx'))).href;

/** A program with packages of its own, away from this repository. */
function makeProject(): string {
  const project = mkdtempSync(join(tmpdir(), 'project-'));
  mkdirSync(join(project, 'node_modules'));
  cpSync(join(support, 'packages'), join(project, 'node_modules'), { recursive: true });
  cpSync(join(support, 'app'), join(project, 'app'), { recursive: true });
  return project;
}

async function outcomes(
  table: string,
  flags: string[],
  node = process.execPath,
): Promise<[name: string, outcome: string][]> {
  const args = [...flags, join(support, 'driver.mjs'), join(makeProject(), 'app', table), join(support, 'worker.mjs')];
  const env = { ...process.env, VALUES, NODE_OPTIONS: '' };
  const { stdout } = await run(node, args, { env, maxBuffer: 1e8 }).catch((error: unknown) => {
    const { stdout } = error as { stdout?: string };
    if (stdout?.includes('[[') !== true) throw error;
    return { stdout };
  });
  const line = stdout.split('\n').find((text) => text.startsWith('[['));
  return JSON.parse(line ?? '[]') as [string, string][];
}

const setups: [name: string, table: string, flags: string[]][] = [
  ['JavaScript', 'shapes.mjs', []],
  ['JavaScript through tsx', 'shapes.mjs', [`--import=${tsx}`]],
  ['TypeScript through tsx', 'typed.mts', [`--import=${tsx}`]],
];

function allFareWell(t: ExecutionContext, rows: [name: string, outcome: string][]): void {
  t.true(rows.length > 5);
  t.deepEqual(
    rows.filter(([, outcome]) => outcome !== 'works' && outcome !== 'refused'),
    [],
  );
}

const withNodes = testWith('nodes');
for (const [name, table, flags] of setups) {
  test(`every shape of function does in another process what it does here: ${name}`, async (t) => {
    allFareWell(t, await outcomes(table, flags));
  });
  for (const major of [22, 24, 26]) {
    withNodes(`every shape of function, on Node ${major}: ${name}`, async (t) => {
      allFareWell(t, await outcomes(table, flags, nodeOf(major)));
    });
  }
}

test('the table of shapes in the docs is what was seen', async (t) => {
  const text = readFileSync(new URL('../../docs/functions.md', import.meta.url), 'utf8');
  const documented = [...text.matchAll(/^\| ([^|]+) \| (works|refused)\b[^|]*\|$/gm)].map(([, name, outcome]) => [
    name,
    outcome,
  ]);
  const seen = [...(await outcomes('shapes.mjs', [])), ...(await outcomes('typed.mts', [`--import=${tsx}`]))];
  t.deepEqual(documented.sort(), seen.sort());
});
