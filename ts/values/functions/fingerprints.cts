/**
 * Fingerprints of module variables: what a worker tells by whether the copy it keeps began with the same content. A
 * variable's fingerprint covers every variable that can be reached from it, through functions too.
 */
import { hash, randomUUID } from 'node:crypto';
import type { Writer } from '../writer.cjs';
import type { Captured } from './capture.cjs';
import type { FunctionWriter } from './function-writer.cjs';
import type { ModuleVariable } from './scripts.cjs';

/** A variable's own content, in which other variables of modules stand as names. */
interface Local {
  readonly hash: string;
  readonly reached: readonly (readonly [ModuleVariable, Captured])[];
}

type Fork = (named: NonNullable<FunctionWriter['fingerprinted']>) => Writer;

export class Fingerprints {
  private readonly fork: Fork;
  private readonly locals = new Map<string, Local>();

  /** `fork` makes a writer that gives the variables it meets to its argument. */
  constructor(fork: Fork) {
    this.fork = fork;
  }

  /** The fingerprint of a variable. */
  of(module: ModuleVariable, captured: Captured): string {
    const hashes = new Map<string, string>();
    const queue: (readonly [ModuleVariable, Captured])[] = [[module, captured]];
    for (let next = queue.pop(); next !== undefined; next = queue.pop()) {
      const key = `${next[0].script.key}:${next[0].name}`;
      if (hashes.has(key)) continue;
      const local = this.local(key, next[1]);
      hashes.set(key, local.hash);
      queue.push(...local.reached);
    }
    const lines = [...hashes].map(([key, digest]) => `${key}=${digest}`).sort();
    return hash('sha1', lines.join('\n'), 'hex');
  }

  private local(key: string, captured: Captured): Local {
    let local = this.locals.get(key);
    if (local === undefined) {
      local = this.digest(captured);
      this.locals.set(key, local);
    }
    return local;
  }

  private digest(captured: Captured): Local {
    const reached: (readonly [ModuleVariable, Captured])[] = [];
    const writer = this.fork((module, found) => reached.push([module, found]));
    try {
      writer.value(captured.how === 'cell' ? captured.cell.value : (captured as { value?: unknown }).value);
      const digests = writer.finish().map((buffer) => hash('sha1', buffer as Uint8Array, 'hex'));
      const header = hash('sha1', writer.bytes.subarray(0, writer.position), 'hex');
      return { hash: [header, ...digests, ...writer.refs.map(String)].join(), reached };
    } catch {
      // What cannot be sent is refused where it is written, with its path.
      return { hash: randomUUID(), reached };
    } finally {
      writer.end();
    }
  }
}
