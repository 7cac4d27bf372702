/**
 * What compilers and loaders make of imports: a variable that holds a module's exports, read member by member. Of the
 * user's own modules only the members that a function reads travel with it, as they do with real imports.
 */
import { types } from 'node:util';
import type { Capture } from './capture.cjs';
import type { ImportedModule } from './packages.cjs';
import { directoryOf, importedModule } from './packages.cjs';
import type { Script } from './scripts.cjs';
import { lexicalNames, parseProgram } from './syntax.cjs';

/** vite and vitest: `__vite_ssr_import_0__`, `__vi_import_0__`. */
const VITE_IMPORT = /^__vi(te_ssr)?_import_\d+__$/;
/** How vite's module runner begins a module. */
const VITE_HEAD = /^'use strict';\s*async \(__vi(te_ssr)?_/;

/** Whether a variable holds the exports of an ES module, or what an import helper made of another one's. */
export function isNamespace(name: string, value: unknown, script: Script): value is object {
  if (typeof value !== 'object' || value === null) return false;
  if (VITE_IMPORT.test(name)) return true;
  if (types.isProxy(value)) return false;
  if (types.isModuleNamespaceObject(value)) return true;
  if (Object.getOwnPropertyDescriptor(value, '__esModule')?.value === true) return true;
  return isHelped(name, script.source);
}

/** `var _x = _interopRequireWildcard(require("x"))`, and what TypeScript, swc and esbuild write in its place. */
function isHelped(name: string, source: string): boolean {
  const escaped = name.replaceAll('$', '\\$&');
  return new RegExp(`\\b${escaped} = (/\\*.*?\\*/ ?)?[\\w$.]+\\(require\\(["']`).test(source);
}

/** Whether the namespace of a real module goes as a whole: its state is kept by the variable that holds it. */
export function holdsState(namespace: object, members: readonly string[]): boolean {
  if (!types.isModuleNamespaceObject(namespace)) return false;
  return members.some((member) => typeof (namespace as Record<string, unknown>)[member] === 'object');
}

/** The module behind such a variable of vite's, where the whole of it is wanted. */
export function viteModule(name: string, script: Script): ImportedModule | undefined {
  if (!VITE_IMPORT.test(name)) return undefined;
  const specifier = new RegExp(`\\b${name} = await \\w+\\("([^"]+)"`).exec(script.source)?.[1];
  return specifier === undefined ? undefined : importedModule(specifier, '*', directoryOf(script.url));
}

/** An object with some members of a module. What may change, and what is state, is read through the module's getter. */
export function membersOf(namespace: object, members: readonly string[], capture: Capture): object {
  const made: Record<string, unknown> = {};
  for (const member of members) {
    if (!(member in namespace)) continue;
    const value = (namespace as Record<string, unknown>)[member];
    const get = types.isProxy(namespace) ? undefined : Object.getOwnPropertyDescriptor(namespace, member)?.get;
    if (get !== undefined && isState(value, get, capture)) {
      Object.defineProperty(made, member, { get, enumerable: true, configurable: true });
    } else {
      made[member] = value;
    }
  }
  return made;
}

function isState(value: unknown, get: CallableFunction, capture: Capture): boolean {
  const script = capture.scriptOf(get);
  if (script === undefined || script.url.startsWith('node:') || script.url.includes('/node_modules/')) return false;
  if (typeof value === 'object' && value !== null) return true;
  const variable = /\breturn ([\p{ID_Start}$_][\p{ID_Continue}$]*)\b/u.exec(Function.prototype.toString.call(get))?.[1];
  return variable !== undefined && script.mayAssign(variable);
}

const tops = new WeakMap<Script, ReadonlySet<string>>();

/** Whether the variables of a block are those of a module that vite wrapped into a function. */
export function isViteModule(script: Script, variables: readonly string[]): boolean {
  if (!VITE_HEAD.test(script.source)) return false;
  let names = tops.get(script);
  if (names === undefined) {
    names = topNames(script);
    tops.set(script, names);
  }
  return variables.every((name) => names?.has(name));
}

function topNames(script: Script): Set<string> {
  const names = new Set<string>();
  const statement = parseProgram(script.source, false)['body'][1];
  const block = statement?.expression?.body?.body?.[0];
  if (block?.type === 'BlockStatement') lexicalNames(block.body, (name) => names.add(name));
  return names;
}

/** Istanbul's counters of a file: `cov_2h3k4j()`. A worker's would count for nobody. */
export function isCounter(name: string, value: unknown, script: Script): boolean {
  return typeof value === 'function' && /^cov_[0-9a-z]+$/.test(name) && script.source.includes('__coverage__');
}

const zeros: object = new Proxy({}, { get: () => 0, set: () => true });
const branches: object = new Proxy({}, { get: () => zeros });

/** In place of such counters: takes every count. */
export function counters(): object {
  return { s: zeros, f: zeros, b: branches, bT: branches };
}
