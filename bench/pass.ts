/** One pass of the batch inference job over all its shards, however it is done. */
import { closeSync, openSync, writeSync } from 'node:fs';

export interface Pass {
  readonly milliseconds: number;
  readonly lines: readonly string[];
}

/** Times a pass from its beginning to its last printed line. All print to the same place, which costs a system call for each line. */
export async function timePass(pass: (print: (line: string) => void) => Promise<void>): Promise<Pass> {
  const lines: string[] = [];
  const output = openSync('/dev/null', 'w');
  const started = performance.now();
  await pass((line) => {
    writeSync(output, `${line}\n`);
    lines.push(line);
  });
  const milliseconds = performance.now() - started;
  closeSync(output);
  return { milliseconds, lines };
}
