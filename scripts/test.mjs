// `npm test [-- rust types ava]`: sets up what is missing, runs every test there is, or the named runners, and prints their totals.
import { ask, Failure, main, run, step } from './process.mjs';
import { setUp } from './setup.mjs';

const inCi = process.env.CI === 'true';
const color = process.stdout.isTTY ? { CARGO_TERM_COLOR: 'always', FORCE_COLOR: '1' } : {};

/** The addon has no tests of its own: a test program has no Node to link with. */
const CRATES = ['--workspace', '--exclude', 'heliostat-napi'];

/** Each runs its tests and resolves to their counts. */
const RUNNERS = {
  async rust() {
    if (ask('cargo', ['nextest', '--version']) === undefined) return cargoTest(['--lib', '--bins', '--tests']);
    const { code, text } = await capture('cargo', ['nextest', 'run', ...CRATES, '--profile', inCi ? 'ci' : 'default']);
    const [, run = 0, passed = 0] = text.match(/(\d+) tests? run: (\d+) passed/) ?? [];
    return { code, passed: Number(passed), failed: run - passed, skipped: sum(text, /, (\d+) skipped/g) };
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
      passed: sum(text, /^ *(\d+) tests? passed/gm),
      failed: sum(text, /^ *(\d+) (?:tests? failed|known failures?|unhandled rejections?|uncaught exceptions?)/gm),
      skipped: sum(text, /^ *(\d+) tests? (?:skipped|todo)/gm),
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

async function cargoTest(kinds) {
  const { code, text } = await capture('cargo', ['test', ...CRATES, ...kinds, '--no-fail-fast']);
  return {
    code,
    passed: sum(text, /^test result: .* (\d+) passed/gm),
    failed: sum(text, /^test result: .* (\d+) failed/gm),
    skipped: sum(text, /^test result: .* (\d+) ignored/gm),
  };
}

function capture(command, args) {
  return run(command, args, { output: 'capture', env: color });
}

function sum(text, pattern) {
  return [...text.matchAll(pattern)].reduce((all, [, count]) => all + Number(count), 0);
}
