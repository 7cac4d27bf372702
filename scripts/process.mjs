// Child processes for the scripts of this folder: their output is seen as it comes, signals reach them, and their end is ours.
import { spawn, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { stripVTControlCharacters } from 'node:util';

export const ROOT = fileURLToPath(new URL('..', import.meta.url));

const HEARTBEAT_MS = 15_000;
const children = new Set();

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.on(signal, () => {
    // A terminal gives Ctrl-C to the whole group, so the child has it already.
    const sentToGroup = signal === 'SIGINT' && process.stdin.isTTY;
    if (!sentToGroup) for (const child of children) child.kill(signal);
    if (children.size === 0) dieOf(signal);
  });
}

/** Ends this process in the way that a shell understands. */
export function dieOf(signal) {
  process.removeAllListeners(signal);
  process.kill(process.pid, signal);
}

/**
 * Runs a command in the project's root and resolves to its exit code, 1 when it could not start.
 * `output`: 'inherit' shows it as it is, 'stderr' sends all of it to standard error, 'capture' shows it and returns it as well.
 */
export async function run(command, args, { output = 'inherit', env = {} } = {}) {
  const stdio = { inherit: 'inherit', stderr: ['inherit', 2, 2], capture: ['inherit', 'pipe', 'pipe'] }[output];
  const child = spawn(command, args, { cwd: ROOT, stdio, env: { ...process.env, ...env } });
  children.add(child);
  let text = '';
  if (output === 'capture') {
    for (const [from, to] of [
      [child.stdout, process.stdout],
      [child.stderr, process.stderr],
    ]) {
      from.on('data', (chunk) => {
        text += chunk;
        to.write(chunk);
      });
    }
  }
  const { code, signal } = await new Promise((resolve) => {
    child.on('error', (error) => {
      console.error(`${command}: ${error.message}`);
      resolve({ code: 1, signal: null });
    });
    child.on('close', (code, signal) => resolve({ code, signal }));
  });
  children.delete(child);
  if (signal) dieOf(signal);
  return { code: code ?? 1, text: stripVTControlCharacters(text) };
}

/** What a command prints, or undefined where it is not installed or fails. */
export function ask(command, args) {
  const { status, stdout } = spawnSync(command, args, { cwd: ROOT, encoding: 'utf8' });
  return status === 0 ? stdout.trim() : undefined;
}

/** Says on standard error what is being done, that it is still being done, and how long it took: `name: what is done`. */
export async function step(title, work) {
  const [name] = title.split(':');
  const started = performance.now();
  const seconds = () => `${((performance.now() - started) / 1000).toFixed(1)} s`;
  console.error(`▸ ${title}`);
  const heartbeat = setInterval(() => console.error(`  … ${name}: ${seconds()}`), HEARTBEAT_MS);
  try {
    await work();
    console.error(`✔ ${name}: ${seconds()}`);
  } catch (error) {
    if (error instanceof Failure) error.message = `${name}: ${error.message}`;
    throw error;
  } finally {
    clearInterval(heartbeat);
  }
}

/** A failure that the message explains: no stack trace. */
export class Failure extends Error {}

/** Runs a script's main function; its result is the exit code. */
export async function main(body) {
  try {
    process.exitCode = await body(process.argv.slice(2));
  } catch (error) {
    console.error(error instanceof Failure ? `✘ ${error.message}` : error);
    process.exitCode = 1;
  }
}
