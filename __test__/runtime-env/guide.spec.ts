/** The programs of the guide print what it says. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { runExample } from '../examples/run-example.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const guide = readFileSync(join(ROOT, 'docs/runtime-env.md'), 'utf8');
const programs = [...guide.matchAll(/```ts\n(.*?)```\n\n```text\n(.*?)```/gs)];

test('there are programs', (t) => t.is(programs.length, 3));

for (const [index, [, program = '', text = '']] of programs.entries()) {
  test(`program ${index + 1}`, async (t) => {
    // Inside the package, so that it finds `heliostat` by its name.
    mkdirSync(join(ROOT, 'target'), { recursive: true });
    const directory = mkdtempSync(join(ROOT, 'target', 'guide-'));
    t.teardown(() => rmSync(directory, { recursive: true }));
    const file = join(directory, 'program.mts');
    writeFileSync(file, program);
    const { code, stdout, stderr } = await runExample(file);
    t.is(stdout, text, stderr);
    t.is(code, 0);
  });
}
