/** Runtime environments: what the workers of some tasks are started with. */
import { resolve } from 'node:path';
import * as check from './check.cjs';
import { native } from './native.cjs';
import { translated } from './transfer.cjs';
import type { RuntimeEnv } from './types.cjs';

const KNOWN = ['workingDir', 'envVars', 'execArgv'] as const;

/** Throws TypeError for what cannot be meant. */
export function checkRuntimeEnv(value: unknown, name = 'runtimeEnv'): void {
  if (value === undefined) return;
  check.options(value, name);
  if (Array.isArray(value)) throw new TypeError(`${name} must be an object, got an array`);
  for (const key of Object.keys(value as object)) {
    if (!(KNOWN as readonly string[]).includes(key))
      throw new TypeError(`${name} has no option ${key}; it has ${KNOWN.join(', ')}`);
  }
  const { workingDir, envVars, execArgv } = value as RuntimeEnv;
  check.string(workingDir, `${name}.workingDir`);
  if (workingDir !== undefined && (workingDir === '' || workingDir.includes('\0')))
    throw new TypeError(`${name}.workingDir must be the path of a directory, got ${check.describe(workingDir)}`);
  checkEnvVars(envVars, `${name}.envVars`);
  checkExecArgv(execArgv, `${name}.execArgv`);
}

function checkEnvVars(value: unknown, name: string): void {
  check.options(value, name);
  if (Array.isArray(value)) throw new TypeError(`${name} must be an object, got an array`);
  for (const [key, text] of Object.entries(value ?? {})) {
    if (key === '' || /[=\0]/.test(key))
      throw new TypeError(`${name} has ${JSON.stringify(key)}, which is not a name that a variable can have`);
    check.string(text ?? null, `${name}.${key}`);
    if ((text as string).includes('\0')) throw new TypeError(`${name}.${key} must not contain a null character`);
  }
}

function checkExecArgv(value: unknown, name: string): void {
  if (value === undefined) return;
  if (!Array.isArray(value))
    throw new TypeError(`${name} must be a list of Node's flags, got ${check.describe(value)}`);
  for (const [index, flag] of value.entries()) {
    check.string(flag ?? null, `${name}[${index}]`);
    if ((flag as string).includes('\0')) throw new TypeError(`${name}[${index}] must not contain a null character`);
    // The value of a flag may follow it; anything else would be taken for a program to run in the worker's place.
    const before: unknown = value[index - 1];
    const follows = typeof before === 'string' && before.startsWith('-') && !before.includes('=');
    if (!(flag as string).startsWith('-') && !follows)
      throw new TypeError(`${name}[${index}] must be a flag of Node, which begins with -, got ${check.describe(flag)}`);
  }
}

/** A copy that later changes do not reach, with paths that mean the same everywhere. */
export function settled({ workingDir, envVars, execArgv }: RuntimeEnv): RuntimeEnv {
  return {
    ...(workingDir !== undefined && { workingDir: resolve(workingDir) }),
    ...(envVars !== undefined && { envVars: { ...envVars } }),
    ...(execArgv !== undefined && { execArgv: [...execArgv] }),
  };
}

/** An environment as it stands in an error message: values of variables may be secrets. */
export function withoutValues(env: RuntimeEnv | undefined): object | undefined {
  return env?.envVars === undefined ? env : { ...env, envVars: Object.keys(env.envVars) };
}

/** Makes an environment known, over the inherited one, and gives its id for native code. Its directory is packed now. */
export function prepareEnv(env: RuntimeEnv): string {
  return translated(() => native.prepareEnv(raw(env)));
}

/** Makes an environment that of all tasks that ask for none. */
export function inheritEnv(env: RuntimeEnv): void {
  translated(() => native.inheritEnv(raw(env)));
}

function raw({ workingDir, envVars, execArgv }: RuntimeEnv): Parameters<typeof native.prepareEnv>[0] {
  return {
    ...(workingDir !== undefined && { workingDir }),
    ...(envVars !== undefined && { envVars }),
    ...(execArgv !== undefined && { execArgv }),
  };
}
