import { execFile } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import test from 'ava';
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

async function outcomes(table: string, flags: string[]): Promise<[name: string, outcome: string][]> {
  const args = [...flags, join(support, 'driver.mjs'), join(makeProject(), 'app', table), join(support, 'worker.mjs')];
  const env = { ...process.env, VALUES, NODE_OPTIONS: '' };
  const { stdout } = await run(process.execPath, args, { env, maxBuffer: 1e8 }).catch((error: unknown) => {
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

for (const [name, table, flags] of setups) {
  test(`every shape of function does in another process what it does here: ${name}`, async (t) => {
    const rows = await outcomes(table, flags);
    t.true(rows.length > 5);
    t.deepEqual(
      rows.filter(([, outcome]) => outcome !== 'works' && outcome !== 'refused'),
      [],
    );
  });
}
