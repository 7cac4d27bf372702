/** Runs one case of `tasks` in this process and sends its lines to the one that started it. */
import type { Row } from '../report.ts';
import type { Add } from './figures.ts';

export type Message = { row: Row } | { failed: string };

const { measure } = (await import(`./${process.argv[2]}.ts`)) as { measure(add: Add): Promise<void> };
let sent = Promise.resolve();
function send(message: Message): void {
  // What is sent arrives in order: the last one tells for all.
  sent = new Promise((resolve) => {
    if (process.send) process.send(message, undefined, undefined, () => resolve());
    else resolve(console.log(message));
  });
}

try {
  await measure((row) => send({ row }));
  await sent;
  // A process that does not end now is a fault, and found by the limit.
  if (process.send) process.disconnect();
} catch (error) {
  console.error(error);
  send({ failed: String(error) });
  await sent;
  // What the case left running ends with it.
  process.exit(1);
}
