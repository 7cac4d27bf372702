/** Installed packages: what is imported by name, and how a name is found again. */
import { existsSync, readFileSync } from 'node:fs';
import Module, { builtinModules, createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { types } from 'node:util';
import { hooks } from '../hooks.cjs';
import { Refusal } from '../refusal.cjs';

/** How an import is done again. */
export enum ImportKind {
  /** `import specifier`, from the directory of the importing file. */
  Module = 0,
  /** A file of a package, by `require`. */
  RequiredFile = 1,
  /** A file of a package, by `import`. */
  ImportedFile = 2,
  /** A module of Node, of which a name is wanted. */
  Builtin = 3,
}

/** A module that is imported again on the other side. */
export interface ImportedModule {
  readonly kind: ImportKind;
  /** A specifier, or a package's name followed by a file in it. */
  readonly specifier: string;
  /** Of the package, as found here; empty for builtins. */
  readonly version: string;
  /** Directory of the file that imports it here: where the other side looks first. */
  readonly directory: string;
}

/** Splits 'name/sub/path' and '@scope/name/sub/path'. */
export function packageName(specifier: string): string {
  return specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/');
}

/** Whether a specifier names a module of Node. */
function isBuiltinSpecifier(specifier: string): boolean {
  return specifier.startsWith('node:') || builtinModules.includes(specifier);
}

/** The directory of a script, when it is a file. */
export function directoryOf(url: string): string {
  return dirname(fileOf(url) ?? join(process.cwd(), 'script'));
}

/** The path of a script, when it is a file. */
export function fileOf(url: string): string | undefined {
  if (url.startsWith('/')) return url;
  if (!url.startsWith('file:')) return undefined;
  try {
    return fileURLToPath(url);
  } catch {
    return undefined;
  }
}

const versions = new Map<string, string | undefined>();

/** The version of a package that a directory sees; undefined when none is installed there under this name. */
function installedVersion(name: string, directory: string): string | undefined {
  const key = `${directory}\0${name}`;
  if (!versions.has(key)) versions.set(key, readVersion(packageDirectory(name, directory)));
  return versions.get(key);
}

function readVersion(directory: string | undefined): string | undefined {
  if (directory === undefined) return undefined;
  try {
    const { version } = JSON.parse(readFileSync(join(directory, 'package.json'), 'utf8')) as { version?: string };
    return version ?? '';
  } catch {
    return undefined;
  }
}

function packageDirectory(name: string, directory: string): string | undefined {
  for (let at = directory; ; at = dirname(at)) {
    const candidate = join(at, 'node_modules', name);
    if (existsSync(join(candidate, 'package.json'))) return candidate;
    if (at === dirname(at)) return undefined;
  }
}

/** The import of a name of an installed package or a module of Node; undefined for the user's own files. */
export function importedModule(specifier: string, name: string, directory: string): ImportedModule | undefined {
  if (isBuiltinSpecifier(specifier)) {
    // A namespace object is made by `import` alone; everything else is there at once.
    const kind = name === '*' ? ImportKind.Module : ImportKind.Builtin;
    return { kind, specifier, version: '', directory: '' };
  }
  if (/^[./#]/.test(specifier) || /^[a-z]+:/.test(specifier)) return undefined;
  const version = installedVersion(packageName(specifier), directory);
  return version === undefined ? undefined : { kind: ImportKind.Module, specifier, version, directory };
}

/** A file below node_modules as package and path in it. */
function packageFile(file: string): { name: string; path: string; directory: string } | undefined {
  const marker = '/node_modules/';
  const at = file.lastIndexOf(marker);
  if (at < 0) return undefined;
  const inside = file.slice(at + marker.length);
  const name = packageName(inside);
  return { name, path: inside.slice(name.length + 1), directory: file.slice(0, at) };
}

/** The import of a file of a package. */
export function importedFile(file: string, kind: ImportKind): ImportedModule | undefined {
  const found = packageFile(file);
  if (found === undefined) return undefined;
  const { name, path, directory } = found;
  const version = installedVersion(name, directory) ?? '';
  return { kind, specifier: `${name}/${path}`, version, directory };
}

/** Exports of the CommonJS modules loaded now, by their object. */
export function requiredExports(): Map<unknown, string> {
  const found = new Map<unknown, string>();
  for (const file of Object.keys(require.cache)) {
    const module = require.cache[file];
    const exports: unknown = module?.exports;
    if (module?.loaded !== true || exports === null) continue;
    if (typeof exports !== 'object' && typeof exports !== 'function') continue;
    if (!types.isProxy(exports) && !found.has(exports)) found.set(exports, file);
  }
  return found;
}

/** The export of a package's file under which a function stands. */
export function requiredExport(file: string, value: unknown): string | undefined {
  const exports: unknown = require.cache[file]?.exports;
  if (exports === value) return '*';
  if ((typeof exports !== 'object' && typeof exports !== 'function') || exports === null) return undefined;
  for (const key of Object.keys(exports)) {
    const property = Object.getOwnPropertyDescriptor(exports, key);
    try {
      if ((property?.get === undefined ? property?.value : (exports as Record<string, unknown>)[key]) === value) {
        return key;
      }
    } catch {
      // A getter that throws does not show the value.
    }
  }
  return undefined;
}

// ---------------------------------------------------------------------------------------------- the other side

const importers = new Map<string, (specifier: string) => Promise<object>>();

/** `import()` as a file in `directory` would do it: with the conditions and hooks of the main loader. */
function importFrom(directory: string, specifier: string): Promise<object> {
  let importer = importers.get(directory);
  if (importer === undefined) {
    // A module that Node compiles gets the main loader; one compiled by vm would not on every supported Node.
    const file = join(directory, '__heliostat__.cjs');
    const module = new Module(file) as Module & { _compile(code: string, file: string): void };
    module.filename = file;
    module._compile('module.exports = (specifier) => import(specifier)', file);
    importer = module.exports as (specifier: string) => Promise<object>;
    importers.set(directory, importer);
  }
  return importer(specifier);
}

/** The working directory that came with a worker's runtime environment, if one did. */
const brought = process.env['HELIOSTAT_WORKING_DIR'];

/** Directories in which a package is looked for: what was brought along, where it was imported, then here. */
function searched(directory: string): string[] {
  const all = [brought, directory, process.cwd()].filter((path) => path !== undefined && path !== '');
  return [...new Set(all as string[])];
}

function isMissing(error: unknown): boolean {
  const { code } = error as { code?: string };
  return code === 'ERR_MODULE_NOT_FOUND' || code === 'MODULE_NOT_FOUND' || code === 'ERR_PACKAGE_PATH_NOT_EXPORTED';
}

function missing({ specifier, version }: ImportedModule, error: unknown): Refusal {
  const wanted = version === '' ? specifier : `${specifier} (version ${version})`;
  return new Refusal(
    `its function imports ${wanted}, which is not installed in ${process.cwd()}`,
    'Install it there, or send the working directory along',
    { cause: error },
  );
}

/** Imports a module by name. */
export async function importAgain(wanted: ImportedModule): Promise<object> {
  if (isBuiltinSpecifier(wanted.specifier)) return import(wanted.specifier) as Promise<object>;
  let failure: unknown;
  for (const directory of searched(wanted.directory)) {
    try {
      if (wanted.kind !== ImportKind.ImportedFile) return await importFrom(directory, wanted.specifier);
      return (await import(pathToFileURL(locate(wanted.specifier, directory)).href)) as object;
    } catch (error) {
      if (!isMissing(error)) throw error;
      failure = error;
    }
  }
  throw missing(wanted, failure);
}

/** Loads a module of Node, or a CommonJS file of a package. */
export function requireAgain(wanted: ImportedModule): unknown {
  if (wanted.kind === ImportKind.Builtin) {
    const exports = createRequire(__filename)(wanted.specifier) as object;
    return { ...exports, default: exports };
  }
  let failure: unknown;
  for (const directory of searched(wanted.directory)) {
    try {
      const file = locate(wanted.specifier, directory);
      return createRequire(file)(file) as unknown;
    } catch (error) {
      if (!isMissing(error)) throw error;
      failure = error;
    }
  }
  throw missing(wanted, failure);
}

function locate(specifier: string, directory: string): string {
  const name = packageName(specifier);
  const found = packageDirectory(name, directory);
  if (found === undefined) {
    throw Object.assign(new Error(`no package ${name} in ${directory}`), { code: 'MODULE_NOT_FOUND' });
  }
  return join(found, specifier.slice(name.length + 1));
}

const requires = new WeakMap<CallableFunction, string>();

/** The directory for which a `require` looks, if a value is one. */
export function requireDirectory(value: CallableFunction): string | undefined {
  const made = requires.get(value);
  if (made !== undefined || !isRequire(value)) return made;
  return (value as NodeJS.Require).resolve?.paths?.('x')?.[0]?.replace(/\/node_modules$/, '');
}

/** Node's, and what test runners put in its place. */
function isRequire(value: CallableFunction): boolean {
  const { cache, resolve } = value as NodeJS.Require;
  if (cache === require.cache) return true;
  return Object.hasOwn(value, 'cache') && Object.hasOwn(value, 'main') && typeof resolve?.paths === 'function';
}

/** `require` as a file of a directory had it; where the directory does not exist, packages are looked for here. */
export function requireFor(directory: string): NodeJS.Require {
  const require = createRequire(join(existsSync(directory) ? directory : process.cwd(), 'script.cjs'));
  const wrapped = (specifier: string): unknown => {
    if (specifier === hooks().packageName) return hooks().resolveSelf();
    if (brought !== undefined && packageDirectory(packageName(specifier), brought) !== undefined)
      return createRequire(join(brought, 'script.cjs'))(specifier);
    return require(specifier);
  };
  requires.set(wrapped, directory);
  return Object.assign(wrapped, require);
}
