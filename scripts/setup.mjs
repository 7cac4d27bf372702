// Brings a clone to where its programs run: packages, addon, compiled TypeScript. What is up to date is left alone.
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ask, Failure, ROOT, run, step } from './process.mjs';

const BUILT = join(ROOT, 'target', 'setup.json');
const bin = (path) => join(ROOT, 'node_modules', path);

/** A step is due when its outputs are missing or when it was last done with other inputs. */
const STEPS = [
  { name: 'packages', title: 'packages: npm ci', isDue: () => !areInstalled(), build: installPackages },
  {
    name: 'addon',
    title: 'addon: cargo build --release',
    inputs: ['Cargo.toml', 'Cargo.lock', 'build.rs', 'rust-toolchain.toml', 'crates'],
    outputs: [/^heliostat\..*\.node$/, 'native.cjs', 'index.d.ts'],
    build: () =>
      succeed(process.execPath, [
        bin('@napi-rs/cli/dist/cli.js'),
        ...['build', '--platform', '--release', '--js', 'native.cjs', '--dts', 'index.d.ts'],
      ]),
  },
  {
    name: 'typescript',
    title: 'TypeScript: tsc',
    inputs: ['package-lock.json', 'index.d.ts', 'tsconfig.json', 'tsconfig.build.json', 'ts'],
    outputs: ['dist/index.mjs', 'dist/index.cjs'],
    build: () => succeed(process.execPath, [bin('typescript/bin/tsc'), '-p', 'tsconfig.build.json']),
  },
];

/** Does what is missing and says so; prints one line when nothing is. */
export async function setUp() {
  const started = performance.now();
  const built = readJson(BUILT) ?? {};
  let done = 0;
  checkPrerequisites(STEPS.filter((step) => isDue(step, built)).map(({ name }) => name));
  // Asked again before each step: the addon's build writes the declarations that TypeScript reads.
  for (const current of STEPS) {
    if (!isDue(current, built)) continue;
    await step(current.title, current.build);
    if (current.inputs) remember(built, current);
    done += 1;
  }
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  console.error(done ? `✔ ready after ${seconds} s` : `✔ nothing to build, all is up to date (${seconds} s)`);
}

function isDue({ name, inputs, outputs, isDue }, built) {
  return isDue ? isDue() : !outputs.every(exists) || built[name] !== hash(inputs);
}

function remember(built, { name, inputs }) {
  built[name] = hash(inputs);
  mkdirSync(join(ROOT, 'target'), { recursive: true });
  writeFileSync(BUILT, JSON.stringify(built, null, 1));
}

function exists(output) {
  return typeof output === 'string'
    ? existsSync(join(ROOT, output))
    : readdirSync(ROOT).some((name) => output.test(name));
}

function readJson(path) {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch {
    return undefined;
  }
}

/** Whether node_modules has what the lock file names; npm keeps its own list there. */
function areInstalled() {
  const installed = readJson(bin('.package-lock.json'))?.packages;
  const { '': _, ...wanted } = readJson(join(ROOT, 'package-lock.json')).packages;
  return (
    installed !== undefined &&
    Object.entries(wanted).every(([path, { version, optional }]) =>
      path in installed ? installed[path].version === version : optional,
    )
  );
}

function installPackages() {
  return succeed('npm', ['ci', '--include=dev', '--no-audit', '--no-fund', '--loglevel=error']);
}

/** Names and contents of the files, of directories all files but those that only tests read. */
function hash(inputs) {
  const digest = createHash('sha256');
  for (const path of inputs.flatMap(files)) digest.update(`${path}\0`).update(readFileSync(join(ROOT, path)));
  return digest.digest('hex');
}

function files(path) {
  const full = join(ROOT, path);
  if (!existsSync(full)) return [];
  if (!statSync(full).isDirectory()) return [path];
  return readdirSync(full)
    .filter((name) => !['tests', 'benches', 'target'].includes(name) && !name.endsWith('.md'))
    .sort()
    .flatMap((name) => files(join(path, name)));
}

async function succeed(command, args) {
  // Standard output belongs to the program that is run afterwards.
  const { code } = await run(command, args, { output: 'stderr' });
  if (code !== 0) throw new Failure(`failed with exit code ${code}; the messages above say why`);
}

/** Fails before the first long step rather than in the middle of one. */
function checkPrerequisites(steps) {
  const { engines } = readJson(join(ROOT, 'package.json'));
  const oldest = engines.node.replace('>=', '');
  const problems = [];
  if (isOlder(process.versions.node, oldest)) {
    problems.push(`Node ${oldest} or later is needed, this is ${process.versions.node}: https://nodejs.org`);
  }
  if (process.platform !== 'linux') problems.push(`Heliostat runs on Linux so far, this is ${process.platform}`);
  if (steps.includes('addon')) {
    const [, oldestRust] = readFileSync(join(ROOT, 'Cargo.toml'), 'utf8').match(/rust-version = "([\d.]+)"/);
    const rust = ask('cargo', ['--version'])?.match(/cargo ([\d.]+)/)?.[1];
    if (!rust) problems.push('Rust is needed to build the addon, and cargo was not found: https://rustup.rs');
    else if (isOlder(rust, oldestRust))
      problems.push(`Rust ${oldestRust} or later is needed, this is ${rust}: rustup update`);
    if (ask(process.env.CC || 'cc', ['--version']) === undefined) {
      problems.push('a C compiler is needed to link the addon, and cc was not found: install gcc or clang');
    }
  }
  if (problems.length) throw new Failure(problems.join('\n✘ '));
}

function isOlder(version, than) {
  const [a, b] = [version, than].map((text) => text.split('.').map(Number));
  for (let i = 0; i < b.length; i++) if (a[i] !== b[i]) return (a[i] ?? 0) < b[i];
  return false;
}
