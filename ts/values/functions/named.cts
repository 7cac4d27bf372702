/** Values that are found again by a name: of the runtime, of installed packages, and of this package. */
import { dirname } from 'node:path';
import { hooks } from '../hooks.cjs';
import { Refusal } from '../refusal.cjs';
import type { BuiltinPath } from './builtins.cjs';
import { builtinFunction, builtinObject, isNative } from './builtins.cjs';
import type { Capture } from './capture.cjs';
import { guard, importerDirectory } from './compile.cjs';
import { counters } from './namespaces.cjs';
import type { ImportedModule } from './packages.cjs';
import { fileOf, ImportKind, importedFile, requireDirectory, requiredExport } from './packages.cjs';

/** Where a value is found. */
export type Name =
  | { readonly how: 'self'; readonly name: string }
  | { readonly how: 'builtin'; readonly path: BuiltinPath }
  | { readonly how: 'prototype' }
  | { readonly how: 'require'; readonly directory: string }
  | { readonly how: 'import'; readonly module: ImportedModule; readonly name: string };

/** First key of the paths of what a revived function's wrapper binds. */
export const OWN_PREFIX = 'heliostat';

/** Where the files of this package are, compiled. */
const OWN_DIRECTORY = `${dirname(dirname(__dirname))}/`;

export class NamedValues {
  private readonly capture: Capture;
  private self: Map<unknown, string> | undefined;
  private ownCount: number | undefined;

  constructor(capture: Capture) {
    this.capture = capture;
  }

  /** The name of a value; undefined when it has none and goes by value. */
  find(value: object): Name | undefined {
    const own = this.ownExports().get(value);
    if (own !== undefined) return { how: 'self', name: own };
    if (typeof value === 'function') return this.findFunction(value as CallableFunction);
    if (this.isOwnNamespace(value)) return { how: 'self', name: '*' };
    const type: unknown = Object.getOwnPropertyDescriptor(value, 'constructor')?.value;
    if (typeof type === 'function' && type.prototype === value) return { how: 'prototype' };
    const required = this.findRequired(value);
    if (required !== undefined) return required;
    if (!this.isOfRuntime(value)) return undefined;
    const path = builtinObject(value);
    return path && { how: 'builtin', path };
  }

  /** Whether an object may be one of Node's: the first function that it holds says whose it is. */
  private isOfRuntime(value: object): boolean {
    for (const key of Reflect.ownKeys(value)) {
      const property = Object.getOwnPropertyDescriptor(value, key);
      const held: unknown = property?.get ?? property?.value;
      if (typeof held !== 'function') continue;
      return isNative(held) || this.capture.scriptOf(held)?.url.startsWith('node:') === true;
    }
    return true;
  }

  /** What a file of a package exports as a whole. */
  private findRequired(value: object): Name | undefined {
    const file = this.capture.requiredFile(value);
    const module = file === undefined ? undefined : importedFile(file, ImportKind.RequiredFile);
    return module && { how: 'import', module, name: '*' };
  }

  private findFunction(value: CallableFunction): Name | undefined {
    if (isNative(value)) {
      const path = builtinFunction(value, undefined);
      return path && { how: 'builtin', path };
    }
    if (value === counters) return { how: 'builtin', path: [OWN_PREFIX, 'counters'] };
    if (value === guard) return { how: 'builtin', path: [OWN_PREFIX, 'guard'] };
    const importing = importerDirectory(value);
    if (importing !== undefined) return { how: 'builtin', path: [OWN_PREFIX, 'import', importing] };
    const requiring = requireDirectory(value);
    if (requiring !== undefined) return { how: 'require', directory: requiring };
    // Asked before the debugger, which would list every property of a function that is a package.
    const required = this.findRequired(value);
    if (required !== undefined) return required;
    const script = this.capture.scriptOf(value);
    if (script === undefined) return undefined;
    if (script.url.startsWith('node:')) {
      const path = builtinFunction(value, script.url);
      return path && { how: 'builtin', path };
    }
    const file = fileOf(script.url);
    if (file?.startsWith(OWN_DIRECTORY) === true) {
      throw new Refusal(`is ${value.name || 'a function'} inside ${this.capture.packageName}, which no export shows`);
    }
    if (file === undefined || !file.includes('/node_modules/')) return undefined;
    return this.findExport(value, file);
  }

  /** A function of a package that is one of the exports of its file. */
  private findExport(value: CallableFunction, file: string): Name | undefined {
    const required = requiredExport(file, value);
    if (required !== undefined) {
      const module = importedFile(file, ImportKind.RequiredFile);
      return module && { how: 'import', module, name: required };
    }
    const exported = this.capture.exportOf(value);
    const module = exported === undefined ? undefined : importedFile(file, ImportKind.ImportedFile);
    return module && { how: 'import', module, name: exported as string };
  }

  private ownExports(): Map<unknown, string> {
    if (this.self !== undefined) return this.self;
    const exports = hooks().resolveSelf() as object;
    this.self = new Map<unknown, string>([[exports, '*']]);
    for (const name of Object.getOwnPropertyNames(exports)) {
      const value: unknown = (exports as Record<string, unknown>)[name];
      if ((typeof value === 'object' && value !== null) || typeof value === 'function') {
        if (!this.self.has(value)) this.self.set(value, name);
      }
    }
    return this.self;
  }

  /** The package's ES module, and what compilers of TypeScript wrap around its exports, show the same values. */
  private isOwnNamespace(value: object): boolean {
    const exports = hooks().resolveSelf() as Record<string, unknown>;
    const isExport = (name: string) => name !== 'default' && name !== '__esModule' && name !== 'module.exports';
    const names = Object.keys(value).filter(isExport);
    // Compared by name first: reading a property of the user's may run a getter.
    this.ownCount ??= Object.keys(exports).filter(isExport).length;
    if (names.length === 0 || names.length !== this.ownCount) return false;
    if (!names.every((name) => Object.hasOwn(exports, name))) return false;
    return names.every((name) => (value as Record<string, unknown>)[name] === exports[name]);
  }
}
