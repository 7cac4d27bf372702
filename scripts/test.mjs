// `npm test [-- rust types ava]`: sets up what is missing, runs every test there is, or the named runners, and prints their totals.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ask, Failure, main, ROOT, run, step } from './process.mjs';
import { setUp } from './setup.mjs';

const inCi = process.env.CI === 'true';
const color = process.stdout.isTTY ? { CARGO_TERM_COLOR: 'always', FORCE_COLOR: '1' } : {};

/** The addon has no tests of its own: a test program has no Node to link with. */
const CRATES = ['--workspace', '--exclude', 'heliostat-napi'];

/** Each runs its tests and resolves to their counts. */
const RUNNERS = {
  async rust() {
    const counts = ask('cargo', ['nextest', '--version'])
      ? await nextest()
      : await cargoTest(['--lib', '--bins', '--tests']);
    return { ...counts, skipped: Math.max(0, counts.skipped - helperTests()) };
  },

  /** nextest doesn't run the examples in doc comments. */
  doc: () => cargoTest(['--doc']),

  async types() {
    const { code } = await capture(process.execPath, ['node_modules/typescript/bin/tsc', '-p', 'tsconfig.json']);
    return { code, passed: code === 0 ? 1 : 0, failed: code === 0 ? 0 : 1, skipped: 0 };
  },

  async ava() {
    const { code, text } = await capture(process.execPath, ['node_modules/ava/entrypoints/cli.mjs']);
    return {
      code,
      // AVA's own summary leaves out what passed when something failed.
      passed: [...text.matchAll(/^ *✔ /gm)].length,
      failed: sum(text, /^ *(\d+) (?:(?:test|hook)s? failed|unhandled rejections?|uncaught exceptions?)$/gm),
      skipped: sum(text, /^ *(\d+) tests? (?:skipped|todo)$/gm),
    };
  },
};

await main(async (names) => {
  const unknown = names.filter((name) => !(name in RUNNERS));
  if (unknown.length)
    throw new Failure(`no such runner: ${unknown.join(', ')}; there are ${Object.keys(RUNNERS).join(', ')}`);
  await setUp();

  const rows = [];
  for (const name of names.length ? names : Object.keys(RUNNERS)) {
    await step(`${name}: tests`, async () => rows.push({ name, ...checked(await RUNNERS[name]()) }));
  }

  console.log();
  for (const { name, passed, failed, skipped } of rows) {
    console.log(`${name.padEnd(6)} ${passed} passed, ${failed} failed${skipped ? `, ${skipped} skipped` : ''}`);
  }
  const total = (count) => rows.reduce((all, row) => all + row[count], 0);
  console.log(`${total('passed')} passed, ${total('failed')} failed`);
  return total('failed') ? 1 : 0;
});

/** A runner that fails without naming a test, a build error say, counts as one failure; so does a skipped test in CI. */
function checked({ code, passed, failed, skipped }) {
  if (inCi) return { passed, failed: Math.max(failed, code === 0 ? 0 : 1) + skipped, skipped };
  return { passed, failed: Math.max(failed, code === 0 ? 0 : 1), skipped };
}

async function nextest() {
  const { code, text } = await capture('cargo', ['nextest', 'run', ...CRATES, '--profile', inCi ? 'ci' : 'default']);
  const [, run = 0, passed = 0] = text.match(/(\d+) tests? run: (\d+) passed/) ?? [];
  return { code, passed: Number(passed), failed: run - passed, skipped: sum(text, /, (\d+) skipped/g) };
}

async function cargoTest(kinds) {
  const { code, text } = await capture('cargo', ['test', ...CRATES, ...kinds, '--no-fail-fast']);
  return {
    code,
    passed: sum(text, /^test result: .* (\d+) passed/gm),
    failed: sum(text, /^test result: .* (\d+) failed/gm),
    skipped: sum(text, /^test result: .* (\d+) ignored/gm),
  };
}

/**
 * Some tests start a part of themselves in a process of its own. That part looks like a test to the runner, which leaves it out: it is
 * marked `#[ignore = "… tests below …"]`, and not counted as skipped.
 */
function helperTests() {
  const crates = join(ROOT, 'crates');
  return readdirSync(crates, { recursive: true })
    .filter((path) => path.endsWith('.rs'))
    .flatMap((path) => [...readFileSync(join(crates, path), 'utf8').matchAll(/#\[ignore = ".*\btests? below\b/g)])
    .length;
}

function capture(command, args) {
  return run(command, args, { output: 'capture', env: color });
}

function sum(text, pattern) {
  return [...text.matchAll(pattern)].reduce((all, [, count]) => all + Number(count), 0);
}
