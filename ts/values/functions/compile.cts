/** Compiling the text of functions at its original place, and what their wrappers bind. */
import { Script } from 'node:vm';
import { isInner } from '../../realm.cjs';
import { hooks } from '../hooks.cjs';
import { ImportKind, importAgain } from './packages.cjs';
import { WRAPPER_TAIL, wrapperNames } from './rewriting.cjs';
import { Form } from './syntax.cjs';

/** While it is on, constructors of revived classes make their object and do nothing else. */
export const guard = Object.assign(function guard() {}, { on: false, any: anything() });

/** Takes any destructuring: every property is again like it. */
function anything(): unknown {
  const value: object = new Proxy(
    {},
    {
      get: (_, key) => {
        if (key !== Symbol.iterator) return value;
        return function* () {
          for (let i = 0; i < 16; i++) yield value;
        };
      },
    },
  );
  return value;
}

/** A function's code, as it is read. */
export interface Code {
  readonly flags: number;
  readonly form: Form;
  readonly memberKind: string;
  readonly memberKey: string;
  readonly prefix: string;
  readonly url: string;
  readonly line: number;
  readonly column: number;
  readonly variables: readonly { readonly name: string; readonly isCell: boolean; readonly isEager: boolean }[];
  readonly text: string;
  readonly isStrict: boolean;
}

/** Given to a class's code: sets a private field of an instance, and one of the class. */
export type SetPrivate = (object: object, name: string, value: unknown) => void;
export type SetStaticPrivate = (name: string, value: unknown) => void;

/** The values of a wrapper's parameters, in order. */
export type Bindings = readonly [
  superclass: unknown,
  privates: (setInstance: SetPrivate, setStatic: SetStaticPrivate) => void,
  meta: unknown,
  importer: unknown,
  outerArguments: unknown,
  wrapperGuard: typeof guard,
];

/** Makes the function, then one setter for each variable. */
export type Instance = readonly [make: (home: object) => unknown, ...setters: ((value: unknown) => void)[]];
type Wrapper = (...bindings: Bindings) => Instance;

const wrappers = new Map<string, Wrapper>();
const MOST_WRAPPERS = 5000;

/** The wrapper of a code, compiled once per text and place. */
export function compile(code: Code): Wrapper {
  const { head, tail } = surroundings(code);
  const key = `${code.url}\0${code.line}\0${code.column}\0${head}${code.text}`;
  let wrapper = wrappers.get(key);
  if (wrapper === undefined) {
    wrapper = isInner ? evaluate(code, head, tail) : run(code, head, tail);
    if (wrappers.size >= MOST_WRAPPERS) wrappers.clear();
    wrappers.set(key, wrapper);
  }
  return wrapper;
}

function run(code: Code, head: string, tail: string): Wrapper {
  const script = new Script(head + code.text + tail, {
    filename: code.url,
    lineOffset: code.line,
    columnOffset: code.column - head.length,
  });
  return script.runInThisContext() as Wrapper;
}

/** `vm` would compile in Node's own realm; what is evaluated is of this one, and blank lines put it in its place. */
function evaluate(code: Code, head: string, tail: string): Wrapper {
  // biome-ignore lint/security/noGlobalEval: a function by value is code, and nothing else compiles it in this realm
  const indirect = globalThis.eval;
  return indirect(`${'\n'.repeat(code.line)}${head}${code.text}${tail}\n//# sourceURL=${code.url}`) as Wrapper;
}

function surroundings(code: Code): { head: string; tail: string } {
  const names = wrapperNames(code.prefix);
  const { superclass, privates, meta, importer, outerArguments, home, key } = names;
  const parameters = [superclass, privates, meta, importer, outerArguments, names.guard].join();
  const declared = code.variables.map(({ name, isCell }) => (isCell ? names.cell(name) : name));
  const strict = code.isStrict ? '"use strict";' : '';
  const variables = declared.length > 0 ? `let ${declared.join()};` : '';
  const setters = declared.map((name) => `,${code.prefix}=>{${name}=${code.prefix}}`).join('');
  let around = { open: 'return(', close: '\n)' };
  if (code.form !== Form.Expression) {
    around = pick(code, code.form === Form.Method ? `{__proto__:${home},` : 'new class{', key);
  }
  return {
    head: `(function(${parameters}){${strict}${variables}return[${home}=>{${around.open}`,
    tail: `${around.close}}${WRAPPER_TAIL}${setters}]})`,
  };
}

/** How a method is taken out of the object or class that its text stands in. */
function pick(code: Code, object: string, keyName: string): { open: string; close: string } {
  const key = code.memberKey === '' ? keyName : JSON.stringify(code.memberKey);
  const chosen = `const ${keyName}="method";return`;
  return code.memberKind === 'get' || code.memberKind === 'set'
    ? {
        open: `${chosen} Object.getOwnPropertyDescriptor(${object}`,
        close: `\n},${key}).${code.memberKind}`,
      }
    : { open: `${chosen}(${object}`, close: `\n})[${key}]` };
}

const importers = new WeakMap<CallableFunction, string>();
const importersByDirectory = new Map<string, CallableFunction>();

/** `import()` for a revived function: packages as its own file would see them. */
export function importerFor(directory: string): CallableFunction {
  let importer = importersByDirectory.get(directory);
  if (importer === undefined) {
    importer = (specifier: unknown): Promise<object> =>
      specifier === hooks().packageName
        ? Promise.resolve(hooks().resolveSelf() as object)
        : importAgain({ kind: ImportKind.Module, specifier: String(specifier), version: '', directory });
    importersByDirectory.set(directory, importer);
    importers.set(importer, directory);
  }
  return importer;
}

/** The directory of such an `import()`. */
export function importerDirectory(value: CallableFunction): string | undefined {
  return importers.get(value);
}
