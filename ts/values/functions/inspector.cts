/**
 * What only the debugger knows of a function: its script, its scopes, its bound parts, and an object's private fields.
 * A session on this same thread answers synchronously. Listing scripts needs the Debugger domain; it is on only
 * between the first unknown script of a capture and its end, since it slows the program (but under coverage it stays).
 */

import type { Runtime } from 'node:inspector';
import { Session } from 'node:inspector';
import { outer } from '../../realm.cjs';
import { Refusal } from '../refusal.cjs';

/** The internal slots of a function or object. */
export interface Internals {
  readonly location: Location | undefined;
  readonly scopes: readonly Scope[];
  readonly bound: { target: CallableFunction; self: unknown; arguments: unknown[] } | undefined;
  /** Private fields; methods and accessors have no value here. */
  readonly fields: readonly { name: string; value: unknown }[];
}

export interface Location {
  readonly scriptId: string;
  readonly line: number;
  readonly column: number;
}

/** One scope around a function, innermost first; `variables` is V8's copy of it. */
export interface Scope {
  readonly kind: string;
  readonly variables: Record<string, unknown>;
}

/** A script as the debugger announces it. */
export interface ScriptFacts {
  readonly id: string;
  readonly url: string;
  readonly hash: string;
  readonly isModule: boolean;
  readonly startLine: number;
  readonly startColumn: number;
}

/** The published types of Node 20 lack private fields. */
interface FoundProperties extends Runtime.GetPropertiesReturnType {
  privateProperties?: {
    name: string;
    value?: Runtime.RemoteObject;
    get?: Runtime.RemoteObject;
    set?: Runtime.RemoteObject;
  }[];
}

interface Box {
  given: unknown;
  taken: unknown;
}

const box: Box = { given: undefined, taken: undefined };
const scripts = new Map<string, ScriptFacts>();
/** Made when it is asked for, and again after other scripts were announced. */
const byUrl = new Map<string, ScriptFacts>();
let session: Session | undefined;
let boxId = '';
let debugging = false;

function post<T>(method: string, parameters?: object): T {
  let answer: { error: Error | null; result: unknown } | undefined;
  (session as Session).post(method, parameters, (error: Error | null, result?: unknown) => {
    answer = { error, result };
  });
  if (answer === undefined) throw new Error(`the inspector answers ${method} late`);
  if (answer.error !== null) throw new Error(`${method}: ${answer.error.message}`);
  return answer.result as T;
}

function connect(): void {
  if (session !== undefined) return;
  try {
    session = new Session();
    session.connect();
  } catch (error) {
    session = undefined;
    throw new Refusal('is a function, and reading functions takes the inspector, which is denied here', '', {
      cause: error,
    });
  }
  session.on('Debugger.scriptParsed', ({ params }) => {
    const { scriptId: id, url, hash, startLine, startColumn } = params;
    if (!scripts.has(id)) {
      byUrl.clear();
      scripts.set(id, { id, url, hash, isModule: params.isModule === true, startLine, startColumn });
    }
  });
  // The session sees objects through what it evaluates, in Node's own realm: the box is global there for that one moment.
  const name = Symbol.for('heliostat.inspector');
  const global = outer as unknown as Record<symbol, unknown>;
  global[name] = box;
  const expression = 'globalThis[Symbol.for("heliostat.inspector")]';
  boxId = post<Runtime.EvaluateReturnType>('Runtime.evaluate', { expression, objectGroup: 'box' }).result
    .objectId as string;
  delete global[name];
}

/** The value itself behind the session's description of it. */
function resolve(remote: Runtime.RemoteObject | undefined): unknown {
  if (remote?.objectId === undefined) {
    if (remote?.unserializableValue === undefined) return remote?.value;
    const text = remote.unserializableValue;
    return text.endsWith('n') ? BigInt(text.slice(0, -1)) : Number(text);
  }
  post('Runtime.callFunctionOn', {
    objectId: boxId,
    functionDeclaration: 'function(value){this.taken=value}',
    arguments: [{ objectId: remote.objectId }],
  });
  const value = box.taken;
  box.taken = undefined;
  return value;
}

/** Looks into a function or an object. */
export function inspectInternals(target: object): Internals {
  connect();
  box.given = target;
  const held = post<Runtime.CallFunctionOnReturnType>('Runtime.callFunctionOn', {
    objectId: boxId,
    functionDeclaration: 'function(){return this.given}',
    objectGroup: 'capture',
  });
  box.given = undefined;
  const found = post<FoundProperties>('Runtime.getProperties', {
    objectId: held.result.objectId,
    ownProperties: true,
    nonIndexedPropertiesOnly: true,
  });
  const slots = new Map(found.internalProperties?.map((slot) => [slot.name, slot.value]));
  const place = slots.get('[[FunctionLocation]]')?.value as
    | { scriptId: string; lineNumber: number; columnNumber?: number }
    | undefined;
  const fields = found.privateProperties ?? [];
  return {
    location: place && { scriptId: place.scriptId, line: place.lineNumber, column: place.columnNumber ?? 0 },
    scopes: typeof target === 'function' ? readScopes(resolve(slots.get('[[Scopes]]'))) : [],
    bound: slots.has('[[TargetFunction]]')
      ? {
          target: resolve(slots.get('[[TargetFunction]]')) as CallableFunction,
          self: resolve(slots.get('[[BoundThis]]')),
          arguments: Array.from(resolve(slots.get('[[BoundArgs]]')) as ArrayLike<unknown>),
        }
      : undefined,
    fields: fields
      .filter((field) => field.value !== undefined && field.get === undefined && field.set === undefined)
      .map((field) => ({ name: field.name, value: resolve(field.value) })),
  };
}

function readScopes(list: unknown): Scope[] {
  const scopes: Scope[] = [];
  for (const entry of Array.from((list ?? []) as ArrayLike<{ description?: string; object: unknown }>)) {
    const kind = entry.description ?? '';
    // The last one is the global object: what is found there is no capture.
    if (kind.startsWith('Global')) break;
    scopes.push({ kind, variables: entry.object as Record<string, unknown> });
  }
  return scopes;
}

/** What the debugger knows of a script. */
export function scriptFacts(id: string): ScriptFacts {
  const known = scripts.get(id);
  if (known !== undefined) return known;
  enableDebugger();
  const found = scripts.get(id);
  if (found === undefined) throw new Error(`the inspector does not know script ${id}`);
  return found;
}

/** The scripts announced so far. */
export function knownScripts(): ScriptFacts[] {
  return [...scripts.values()];
}

/** The text of a script as it was compiled. */
export function scriptSource(id: string): string {
  enableDebugger();
  return post<{ scriptSource: string }>('Debugger.getScriptSource', { scriptId: id }).scriptSource;
}

/** The script with this URL, if one is loaded that the debugger has announced so far. Loaders may add a query. */
export function scriptByUrl(url: string): ScriptFacts | undefined {
  if (byUrl.size === 0) for (const facts of scripts.values()) byUrl.set(facts.url.replace(/[?#].*$/, ''), facts);
  return byUrl.get(url);
}

function enableDebugger(): void {
  if (debugging) return;
  connect();
  post('Debugger.enable');
  debugging = true;
}

/**
 * Lists the scripts that are loaded. The first time, V8 makes a hash of each, Node's own ones included: more than half of what
 * the first capture of a process takes.
 */
export function listScripts(): void {
  if (scripts.size > 0) return;
  try {
    enableDebugger();
  } catch {
    // Where the inspector is denied, the first function that is sent says so.
  } finally {
    endInspection();
  }
}

/** Ends a capture: the program runs at its full speed again and the session holds none of its objects. */
export function endInspection(): void {
  if (session === undefined) return;
  post('Runtime.releaseObjectGroup', { objectGroup: 'capture' });
  // V8 forgets which blocks have run when it stops debugging: what counts them (c8, Node's test runner) says so by this.
  if (!debugging || process.env['NODE_V8_COVERAGE']) return;
  post('Debugger.disable');
  debugging = false;
}
