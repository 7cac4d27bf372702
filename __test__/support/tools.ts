/** What tests run against and the repository does not depend on: `node scripts/fetch.mjs NAME …` installs each set in `target/NAME`. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';

type Set = 'compilers' | 'corpus' | 'nodes';

/** Where the packages of a set are. */
export function modulesOf(set: Set): string {
  return fileURLToPath(new URL(`../../target/${set}/node_modules`, import.meta.url));
}

/** Declares a test that needs some sets: without them it is skipped, but not in CI. */
export function testWith(...sets: Set[]): (title: string, body: (t: ExecutionContext) => Promise<void>) => void {
  const missing = sets.filter((set) => !existsSync(join(modulesOf(set), '.complete')));
  if (missing.length === 0 || process.env['CI'] === 'true') return test.serial;
  console.log(`some tests are skipped: \`node scripts/fetch.mjs ${missing.join(' ')}\` installs what they need`);
  return test.serial.skip;
}

/** Program of Node of a major version beside the one that runs the tests. */
export function nodeOf(major: number): string {
  return join(modulesOf('nodes'), `node${major}/bin/node`);
}
