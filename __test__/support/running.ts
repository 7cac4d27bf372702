/** Programs that tests talk to while they run. */
import { type ChildProcess, spawn } from 'node:child_process';
import type { ExecutionContext } from 'ava';
import { eventually } from './cluster.js';

export interface Running {
  child: ChildProcess;
  output(): string;
  /** Waits until a text is there, after what was waited for before. */
  sees(pattern: RegExp): Promise<void>;
}

/** Starts a program that ends with the test at the latest. */
export function start(t: ExecutionContext, cwd: string, args: string[], env: NodeJS.ProcessEnv = {}): Running {
  const { NODE_OPTIONS: _, ...own } = process.env;
  const child = spawn(process.execPath, args, { cwd, env: { ...own, ...env }, stdio: 'pipe' });
  t.teardown(() => child.kill('SIGKILL'));
  let output = '';
  let seen = 0;
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (output += data));
  return {
    child,
    output: () => output,
    sees: (pattern) =>
      eventually(
        () => `${pattern} in ${output}`,
        () => {
          const found = pattern.exec(output.slice(seen));
          if (found === null) return false;
          seen += found.index + found[0].length;
          return true;
        },
      ) as Promise<unknown> as Promise<void>,
  };
}
