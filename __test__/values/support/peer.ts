import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { decode, encode, prepare } from '../../../dist/values/index.cjs';

/** The built codec, for processes that load it by path. */
export const VALUES = fileURLToPath(new URL('../../../dist/values/index.cjs', import.meta.url));

interface Packed {
  header: Uint8Array;
  buffers: ArrayBuffer[];
  refs: number[];
}

/** A value in bytes of its own, as it would lie in the store. */
export function pack(value: unknown): Packed & { handles: readonly object[]; functions: boolean } {
  const { header, buffers, refs, functions } = encode(value);
  return {
    header: Uint8Array.from(header),
    buffers: buffers.map((view) => {
      const copy = new Uint8Array(view.byteLength);
      copy.set(new Uint8Array(view.buffer, view.byteOffset, view.byteLength));
      return copy.buffer;
    }),
    refs: [],
    handles: refs,
    functions,
  };
}

/** Encodes and decodes in this process. */
export function roundTrip<T>(value: T): T {
  const { header, buffers, handles } = pack(value);
  return decode({ header, buffers, refs: (index) => handles[index] as object }) as T;
}

/** Another process that runs functions sent to it. */
export class Peer implements AsyncDisposable {
  private readonly child: ChildProcess;
  private readonly ready: Promise<unknown>;

  constructor() {
    this.child = fork(fileURLToPath(new URL('./peer.mjs', import.meta.url)), {
      cwd: mkdtempSync(join(tmpdir(), 'peer-')),
      serialization: 'advanced',
      execArgv: [],
      env: { ...process.env, VALUES, NODE_OPTIONS: '' },
    });
    this.ready = once(this.child, 'message');
  }

  /** Calls `run` there. */
  async call<A extends unknown[], R>(run: (...args: A) => R, ...args: A): Promise<Awaited<R>> {
    await this.ready;
    const { header, buffers, handles } = pack([run, args]);
    this.child.send({ header, buffers });
    const [answer] = (await once(this.child, 'message')) as [Packed & { failure?: string }];
    if (answer.failure !== undefined) throw new Error(`there: ${answer.failure}`);
    await prepare(answer.header);
    const refs = (index: number) => handles[answer.refs[index] as number] as object;
    return decode({ ...answer, refs }) as Awaited<R>;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = once(this.child, 'exit');
    this.child.disconnect();
    await ended;
  }
}
