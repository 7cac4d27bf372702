// Revives functions and calls them. Knows nothing of the program that sent them.
import { createRequire } from 'node:module';

const { decode, prepare } = createRequire(import.meta.url)(process.env.VALUES);
const kept = new Map();

async function run({ id, header, buffers, args, drain }) {
  let revived = kept.get(id);
  if (revived === undefined) {
    await prepare(header);
    revived = decode({ header, buffers, refs: (index) => ({ ref: index }) });
    kept.set(id, revived);
  }
  const result = await revived(...args);
  if (!drain) return result;
  const items = [];
  for await (const item of result) items.push(item);
  return items;
}

process.on('message', (message) => {
  run(message).then(
    (result) => process.send({ result }),
    (error) => process.send({ error: { message: String(error?.message), stack: String(error?.stack) } }),
  );
});
