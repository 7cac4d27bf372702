import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { runExample } from './examples/run-example.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));

function firstBlock(markdown: string, language: string): string {
  const [, block] = markdown.match(new RegExp(`\`\`\`${language}\n(.*?)\`\`\``, 's')) ?? [];
  return block as string;
}

test("the README's first program prints what the README says", async (t) => {
  const readme = await readFile(join(ROOT, 'README.md'), 'utf8');
  // Inside the package, so that it finds `heliostat` by its name.
  await mkdir(join(ROOT, 'target'), { recursive: true });
  const directory = await mkdtemp(join(ROOT, 'target', 'readme-'));
  t.teardown(() => rm(directory, { recursive: true }));
  const program = join(directory, 'program.mts');
  await writeFile(program, firstBlock(readme, 'ts'));

  const { code, stdout, stderr } = await runExample(program);
  t.is(stdout, firstBlock(readme, 'text'), stderr);
  t.is(code, 0);
});
