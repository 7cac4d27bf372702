/** Modules that revived functions import by name, loaded once per process. */
import type { ByteReader } from '../byte-reader.cjs';
import { MalformedHeader, Refusal } from '../refusal.cjs';
import type { ImportedModule } from './packages.cjs';
import { ImportKind, importAgain, requireAgain } from './packages.cjs';

const loaded = new Map<string, unknown>();

function keyOf({ kind, specifier, version, directory }: ImportedModule): string {
  return `${kind} ${specifier} ${version} ${directory}`;
}

function isAsynchronous({ kind }: ImportedModule): boolean {
  return kind === ImportKind.Module || kind === ImportKind.ImportedFile;
}

/** Reads the table of modules. */
export function readModules(reader: ByteReader): ImportedModule[] {
  const modules: ImportedModule[] = [];
  for (let left = reader.count(7); left > 0; left--) {
    const kind: ImportKind = reader.byte();
    if (ImportKind[kind] === undefined) throw new MalformedHeader('a kind of import is unknown');
    modules.push({ kind, specifier: reader.text(), version: reader.text(), directory: reader.text() });
  }
  return modules;
}

/** Imports what is not loaded yet; undefined when nothing is missing. */
export function importModules(modules: readonly ImportedModule[]): Promise<void> | undefined {
  const missing = modules.filter((module) => isAsynchronous(module) && !loaded.has(keyOf(module)));
  if (missing.length === 0) return undefined;
  return Promise.all(
    missing.map(async (module) => {
      loaded.set(keyOf(module), await importAgain(module));
    }),
  ).then(() => undefined);
}

/** A module's namespace, or what its CommonJS file exports. */
export function loadedModule(module: ImportedModule): unknown {
  const key = keyOf(module);
  if (!loaded.has(key)) {
    if (isAsynchronous(module)) {
      throw new Refusal(`imports ${module.specifier}, which has not been prepared`, 'Await prepare(header) first');
    }
    loaded.set(key, requireAgain(module));
  }
  return loaded.get(key);
}
