// A process that takes a function with its arguments in one value and answers with the encoded result.
import { createRequire } from 'node:module';

const { decode, encode, prepare, setHooks } = createRequire(import.meta.url)(process.env.VALUES);
class Handle {}
const self = { Handle, OwnError: Error, answer: () => 42, value: { fixed: true } };
setHooks({
  isRef: (value) => value instanceof Handle,
  isDraft: () => undefined,
  serializationError: (path, reason, hint) =>
    Object.assign(new Error(`${path}: ${reason}. ${hint}`), { code: 'SERIALIZATION' }),
  packageName: 'heliostat',
  resolveSelf: () => self,
  errorClasses: () => ({}),
});

function pack(value) {
  const { header, buffers, refs } = encode(value);
  const copies = buffers.map((view) => view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
  return { header: Uint8Array.from(header), buffers: copies, refs: refs.map(({ index }) => index) };
}

async function answer({ header, buffers }) {
  await prepare(header);
  const refs = (index) => Object.assign(new Handle(), { index });
  const [run, args] = decode({ header, buffers, refs });
  return pack(await run(...args));
}

process.on('message', (message) => {
  answer(message).then(
    (packed) => process.send(packed),
    (error) => process.send({ failure: String(error?.stack) }),
  );
});
process.send({ ready: true });
