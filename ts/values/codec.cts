/** Encoding and decoding a whole value. */
import { FLAG_CODE, FLAG_MODULES } from './format.cjs';
import './object-reader.cjs';
import { ByteReader } from './byte-reader.cjs';
import type { DecodeSource } from './reader.cjs';
import { loadImports, Reader, readPrefix } from './reader.cjs';
import type { Finding } from './refusal.cjs';
import { isStackOverflow, MalformedHeader, publicError, Refusal } from './refusal.cjs';
import { Writer } from './writer.cjs';

/** Captured data of fewer bytes is nobody's problem. */
const LARGE_CAPTURE = 1 << 20;

/** A value in bytes. */
export interface Encoded {
  /** A view of scratch: valid until the next call of encode, so its caller copies it at once. */
  header: Uint8Array;
  /** Out-of-band data in placeholder order: byte ranges of the user's memory, and of scratch as the header is. */
  buffers: ArrayBufferView[];
  /** The distinct ObjectRef and handle objects met, in index order. */
  refs: readonly object[];
  /** Drafts met, in order. */
  seals: readonly object[];
  /** Whether code is inside. */
  functions: boolean;
}

const NONE: readonly object[] = [];

/** A serializer that a writer calls may encode again: such a call takes another writer. */
const writers: Writer[] = [];

function acquire(): Writer {
  for (const writer of writers) if (!writer.busy) return writer;
  const writer = new Writer();
  writers.push(writer);
  return writer;
}

/** Encodes a value. Throws the public SerializationError, naming the path, for what cannot go. */
export function encode(value: unknown, options?: { root?: string }): Encoded {
  const writer = acquire();
  writer.begin(options?.root ?? '$');
  try {
    writer.value(value);
    const buffers = writer.finish();
    return {
      header: new Uint8Array(writer.bytes.buffer, 0, writer.position),
      buffers,
      refs: writer.refs.length === 0 ? NONE : writer.refs.slice(),
      seals: writer.seals.length === 0 ? NONE : writer.seals.slice(),
      functions: (writer.flags & FLAG_CODE) !== 0,
    };
  } catch (error) {
    throw publicError(error, writer.path.toString());
  } finally {
    writer.end();
  }
}

/** Pays what costs most of the first function that is sent, once: listing the scripts. Worth calling while the first workers start. */
export function listScripts(): void {
  const loaded = require('./functions/inspector.cjs') as typeof import('./functions/inspector.cjs');
  loaded.listScripts();
}

/** Pays the other one-off costs of the first function, such as loading parsers. Worth calling when the event loop is idle. */
export function warmUp(): void {
  const loaded = require('./functions/warm-up.cjs') as typeof import('./functions/warm-up.cjs');
  loaded.warmUp();
}

/** Warns of a function that took much captured data along; `encoded` is what became of it. */
export function warnOfLarge(fn: CallableFunction, { header, buffers }: Encoded): void {
  const bytes = buffers.reduce((sum, { byteLength }) => sum + byteLength, header.byteLength);
  if (bytes < LARGE_CAPTURE) return;
  const loaded = require('./functions/large.cjs') as typeof import('./functions/large.cjs');
  loaded.warnOfLarge(fn, bytes);
}

/** Every place inside `value` that cannot be sent. */
export function inspectSerializable(value: unknown): Finding[] {
  const findings: Finding[] = [];
  const writer = acquire();
  writer.begin('$');
  writer.findings = findings;
  try {
    writer.value(value);
    writer.finish();
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    findings.push({ path: error.path ?? '$', reason: error.reason, hint: error.hint });
  } finally {
    writer.end();
  }
  return findings;
}

/** Imports what the header's functions need; undefined when it can be decoded at once. */
export function prepare(header: Uint8Array): Promise<void> | undefined {
  if (header.length < 2 || ((header[1] as number) & FLAG_MODULES) === 0) return undefined;
  try {
    const reader = new ByteReader(header);
    reader.position = readPrefix(reader).tables;
    const { importModules, readModules } = loadImports();
    const ready = importModules(readModules(reader))?.catch((error: unknown) => {
      throw publicError(error, '$');
    });
    // Whoever cannot wait only asks whether there is a promise: its failure must not end the process.
    ready?.catch(() => undefined);
    return ready;
  } catch (error) {
    const failed = Promise.reject(publicError(error, '$'));
    failed.catch(() => undefined);
    return failed;
  }
}

/** Decodes a value. Throws the public SerializationError for bytes that no encoder made. */
export function decode(source: DecodeSource): unknown {
  try {
    const reader = new Reader(source);
    const value = reader.message();
    reader.release();
    return value;
  } catch (error) {
    if (error instanceof Refusal || isStackOverflow(error)) throw publicError(error, '$');
    // Constructors of the runtime throw their own errors for what a writer would not have written.
    const known = error instanceof MalformedHeader ? error : new MalformedHeader(String(error));
    throw publicError(known, '$');
  }
}
