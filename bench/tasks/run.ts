/** Runs one case of `tasks` in this process and sends its lines to the one that started it. */
import type { Row } from '../report.ts';
import type { Add } from './figures.ts';

export type Message = { row: Row } | { failed: string };

const { measure } = (await import(`./${process.argv[2]}.ts`)) as { measure(add: Add): Promise<void> };
const send = (message: Message) => (process.send ? process.send(message) : console.log(message));
try {
  await measure((row) => send({ row }));
} catch (error) {
  console.error(error);
  send({ failed: String(error) });
  process.exitCode = 1;
}
// What a failed case left running ends with it. The channel is empty by then.
if (process.send) process.disconnect();
