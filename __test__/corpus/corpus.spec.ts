/** Functions of packages that people use, wrapped in closures: what a task gives is what a call here gives. */
import { execFile } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { modulesOf, testWith } from '../support/tools.js';

const run = promisify(execFile);
const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const FIXTURES = fileURLToPath(new URL('fixtures/', import.meta.url));
const PACKAGES = modulesOf('corpus');
const each = testWith('corpus');

/** A program in a directory of its own, in which `heliostat` is this repository. */
function makeProject(): string {
  const project = mkdtempSync(join(tmpdir(), 'heliostat-corpus-'));
  cpSync(FIXTURES, project, { recursive: true });
  const modules = join(project, 'node_modules');
  mkdirSync(modules);
  symlinkSync(ROOT, join(modules, 'heliostat'));
  for (const name of readdirSync(PACKAGES)) symlinkSync(join(PACKAGES, name), join(modules, name));
  return project;
}

for (const [table, specifier, functions] of [
  ['lodash', 'lodash-es', 125],
  ['date-fns', 'date-fns', 70],
  ['zod', 'zod', 30],
  ['rxjs', 'rxjs', 40],
] as const) {
  each(`functions of ${specifier}`, async (t) => {
    const project = makeProject();
    t.teardown(() => rmSync(project, { recursive: true, force: true }));
    const { NODE_OPTIONS: _, ...env } = process.env;
    const { stdout } = await run(process.execPath, ['program.mjs', table, specifier], { cwd: project, env });
    const result = JSON.parse(stdout) as { ran: number; wrong: [name: string, what: string][] };
    t.deepEqual(result.wrong, []);
    t.true(result.ran >= functions, `${result.ran} functions`);
  });
}
