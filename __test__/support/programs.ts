/** Programs in documents: run as they are printed, for what the document says they print. */
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ExecutionContext } from 'ava';
import { runExample } from '../examples/run-example.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** A program, and what it prints. */
export interface Printed {
  program: string;
  output: string;
}

/** The programs of a document: each block of TypeScript, with the block of text after it. */
export async function programsOf(document: string): Promise<Printed[]> {
  const markdown = await readFile(join(ROOT, document), 'utf8');
  const pairs = markdown.matchAll(/```ts\n(.*?)```(?:(?!```).)*```text\n(.*?)```/gs);
  return Array.from(pairs, ([, program = '', output = '']) => ({ program, output }));
}

/** Runs a program, and checks what it prints; `own` leaves lines of workers out. */
export async function prints(
  t: ExecutionContext,
  { program, output }: Printed,
  own: (stdout: string) => string = (stdout) => stdout,
): Promise<void> {
  // Inside the package, so that it finds `heliostat` by its name.
  await mkdir(join(ROOT, 'target'), { recursive: true });
  const directory = await mkdtemp(join(ROOT, 'target', 'program-'));
  t.teardown(() => rm(directory, { recursive: true }));
  const file = join(directory, 'program.mts');
  await writeFile(file, program);
  const { code, stdout, stderr } = await runExample(file);
  t.is(own(stdout), output, stderr);
  t.is(code, 0);
}
