/** Revives functions and classes. See function-writer for the order of things. */
import { dirname } from 'node:path';
import { Tag } from '../format.cjs';
import { hooks } from '../hooks.cjs';
import { classes } from '../identity.cjs';
import { readProperties, setExtensibility } from '../object-reader.cjs';
import type { Reader } from '../reader.cjs';
import { defineReaders } from '../reader.cjs';
import { MalformedHeader, Refusal } from '../refusal.cjs';
import { resolveBuiltin } from './builtins.cjs';
import { Cell } from './cell.cjs';
import { readCodes } from './code-reader.cjs';
import type { Code, Instance, SetPrivate, SetStaticPrivate } from './compile.cjs';
import { compile, guard, importerFor } from './compile.cjs';
import { loadedModule } from './imports.cjs';
import { stateOf } from './module-state.cjs';
import { OWN_PREFIX } from './named.cjs';
import { counters } from './namespaces.cjs';
import type { ImportedModule } from './packages.cjs';
import { directoryOf, fileOf, requireFor } from './packages.cjs';
import {
  CODE_CLASS,
  CODE_HOME,
  CODE_META,
  CODE_OUTER_ARGUMENTS,
  CODE_SUPERCLASS,
  MEMBER_GET,
  MEMBER_SET,
  PrototypeKind,
  VariableKind,
} from './wire.cjs';

type Assign = (value: unknown) => void;
const drop: Assign = () => {};

/** Classes whose constructors heed the guard, with what sets the private fields of their instances. */
const revivedClasses = new WeakMap<object, SetPrivate>();

/** A constructor whose only use is to give its prototype to an object. */
function newTarget(prototype: object): CallableFunction {
  function target() {}
  target.prototype = prototype;
  return target;
}

/** What this package's own paths name. */
function ownBuiltin(path: readonly string[]): CallableFunction {
  if (path[1] === 'guard') return guard;
  return path[1] === 'counters' ? counters : importerFor(path[2] ?? '');
}

export class FunctionReader {
  private readonly reader: Reader;
  private readonly modules: readonly ImportedModule[];
  private readonly strings: readonly string[];
  private readonly codes: readonly Code[];
  private readonly cells: Cell[] = [];
  private readonly pending: (() => void)[] = [];
  private flushed = 0;

  constructor(reader: Reader, modules: readonly ImportedModule[]) {
    this.reader = reader;
    this.modules = modules;
    const { strings, codes } = readCodes(reader);
    this.strings = strings;
    this.codes = codes;
  }

  /** Completes the functions met so far. */
  flush(): void {
    while (this.flushed < this.pending.length) (this.pending[this.flushed++] as () => void)();
  }

  function(): unknown {
    const { reader } = this;
    const id = reader.announce();
    const code = this.code();
    const outerArguments: unknown[] = [];
    const home = {};
    const [make, ...setters] = this.instantiate(code, undefined, () => {}, outerArguments);
    const value = make(home) as CallableFunction;
    this.pending.push(() => {
      this.variables(code, setters, false);
      if ((code.flags & CODE_HOME) !== 0) reader.slot((parent) => Object.setPrototypeOf(home, parent as object | null));
      this.outerArguments(code, outerArguments);
      this.prototype(value);
      this.own(value);
    });
    return reader.resolve(id, value);
  }

  class(): unknown {
    const { reader } = this;
    const id = reader.announce();
    const code = this.code();
    if ((code.flags & CODE_CLASS) === 0) throw new MalformedHeader('a class has the code of a function');
    const identity = reader.text();
    const superclass = (code.flags & CODE_SUPERCLASS) !== 0 ? reader.value() : undefined;
    const known = classes.find(identity);
    const outerArguments: unknown[] = [];
    let setStatic: SetStaticPrivate = () => {};
    let setInstance: SetPrivate = () => {};
    const [make, ...setters] = this.instantiate(
      code,
      superclass,
      (instance, statics) => {
        setInstance = instance;
        setStatic = statics;
      },
      outerArguments,
    );
    if (code.variables.some(({ isEager }) => isEager)) {
      this.variables(code, setters, true);
      this.flush();
    }
    const value = known ?? (make({}) as CallableFunction);
    if (known === undefined) {
      classes.adopt(identity, value);
      revivedClasses.set(value, setInstance);
    }
    // A class that is here already keeps its state: what came is read and dropped.
    const target = known === undefined ? value : Object.assign(() => {}, { prototype: {} });
    this.pending.push(() => {
      this.variables(code, setters, false);
      this.outerArguments(code, outerArguments);
      for (let left = reader.count(2); left > 0; left--) {
        const name = reader.text();
        reader.slot((held) => setStatic(name, held));
      }
      readProperties(reader, target.prototype as object);
      this.own(target);
    });
    return reader.resolve(id, value);
  }

  bound(): unknown {
    const { reader } = this;
    const id = reader.announce();
    const target = reader.object() as CallableFunction;
    const self = reader.value();
    const bound: unknown[] = [];
    for (let left = reader.count(); left > 0; left--) bound.push(reader.value());
    const value = Function.prototype.bind.call(target as never, self, ...bound) as CallableFunction;
    this.pending.push(() => this.own(value));
    return reader.resolve(id, value);
  }

  builtin(): unknown {
    const { reader } = this;
    const path: string[] = [];
    for (let left = reader.count(2); left > 0; left--) path.push(reader.text());
    if (path[0] === OWN_PREFIX) {
      return reader.register(ownBuiltin(path));
    }
    const value = resolveBuiltin(path);
    if (value === undefined) throw new Refusal(`holds ${path.join('.')}, which this runtime lacks`);
    return reader.register(value);
  }

  import(): unknown {
    const { reader } = this;
    const wanted = this.modules[reader.varint()];
    if (wanted === undefined) throw new MalformedHeader('a module is missing');
    const name = reader.text();
    const module = loadedModule(wanted);
    if (name === '*') return reader.register(module);
    const exports = module as Record<string, unknown>;
    if (!(name in exports)) throw new Refusal(`imports ${name} of ${wanted.specifier}, which has no such export here`);
    return reader.register(exports[name]);
  }

  self(): unknown {
    const name = this.reader.text();
    const exports = hooks().resolveSelf() as Record<string, unknown>;
    if (name === '*') return this.reader.register(exports);
    if (!Object.hasOwn(exports, name)) throw new Refusal(`holds ${hooks().packageName}.${name}, which is not here`);
    return this.reader.register(exports[name]);
  }

  require(): unknown {
    return this.reader.register(requireFor(this.reader.text()));
  }

  prototypeOf(): unknown {
    const id = this.reader.announce();
    return this.reader.resolve(id, (this.reader.object() as CallableFunction).prototype as unknown);
  }

  member(): unknown {
    const { reader } = this;
    const id = reader.announce();
    const type = reader.object() as CallableFunction;
    const object = reader.byte() === 1 ? type : (type.prototype as object);
    const half = reader.byte();
    const key = reader.value() as string;
    const property = Object.getOwnPropertyDescriptor(object, key);
    let value: unknown = property?.value;
    if (half === MEMBER_GET) value = property?.get;
    else if (half === MEMBER_SET) value = property?.set;
    return reader.resolve(id, value);
  }

  /** An object that is made by its class, so that it owns the class's private names. */
  privateInstance(): unknown {
    const { reader } = this;
    const prototype = reader.object();
    const maker = reader.object() as new () => object;
    const target = newTarget(prototype);
    if (reader.bytes[reader.position] === Tag.BackReference) return reader.value();
    if (!revivedClasses.has(maker)) {
      throw new Refusal(
        `holds a ${maker.name} with private fields that comes back to the process which declares its class`,
        'Give the class the methods Symbol.for("heliostat.serialize") and Symbol.for("heliostat.deserialize")',
      );
    }
    let made: object;
    guard.on = true;
    try {
      made = Reflect.construct(maker, [], target) as object;
    } finally {
      guard.on = false;
    }
    // Public fields, and what the constructor of a builtin has set: the record holds what they were.
    for (const key of Reflect.ownKeys(made)) Reflect.deleteProperty(made, key);
    const value = reader.instance(prototype, made) as object;
    for (let left = reader.count(3); left > 0; left--) {
      const owner = reader.object();
      const name = reader.text();
      const set = revivedClasses.get(owner);
      reader.slot((held) => set?.(value, name, held));
    }
    return value;
  }

  private code(): Code {
    const code = this.codes[this.reader.varint()];
    if (code === undefined) throw new MalformedHeader('a code is missing');
    return code;
  }

  private instantiate(
    code: Code,
    superclass: unknown,
    privates: (setInstance: SetPrivate, setStatic: SetStaticPrivate) => void,
    outerArguments: unknown[],
  ): Instance {
    const directory = directoryOf(code.url);
    const filename = fileOf(code.url);
    const meta =
      (code.flags & CODE_META) === 0 ? undefined : { url: code.url, filename, dirname: filename && dirname(filename) };
    return compile(code)(superclass, privates, meta, importerFor(directory), outerArguments, guard);
  }

  private variables(code: Code, setters: readonly Assign[], eager: boolean): void {
    code.variables.forEach(({ isCell, isEager }, index) => {
      if (isEager !== eager) return;
      const set = setters[index] as Assign;
      this.variable(set, isCell ? (value) => set(new Cell(value)) : set);
    });
  }

  /** `assign` takes the variable's value, `share` the cell that holds it. */
  private variable(share: Assign, assign: Assign): void {
    const { reader } = this;
    const kind: VariableKind = reader.byte();
    switch (kind) {
      case VariableKind.Value:
        reader.slot(assign);
        return;
      case VariableKind.Cell: {
        const cell = this.cells[reader.varint()];
        if (cell === undefined) throw new MalformedHeader('a variable is missing');
        share(cell);
        return;
      }
      case VariableKind.NewCell: {
        const cell = new Cell(undefined);
        this.cells.push(cell);
        share(cell);
        reader.slot((value) => {
          cell.v = value;
        });
        return;
      }
      case VariableKind.ModuleCell: {
        const state = this.moduleState();
        const kept = state.kept as Cell | undefined;
        const cell = kept ?? new Cell(undefined);
        this.cells.push(cell);
        share(cell);
        if (kept === undefined) state.keep(cell);
        reader.slot(kept === undefined ? (value) => (cell.v = value) : drop);
        return;
      }
      case VariableKind.ModuleValue: {
        const state = this.moduleState();
        const first = reader.objects.length;
        const came = reader.value();
        if (state.kept === undefined) {
          state.keep(came as object);
        } else {
          // The rest of the message refers to the copy that the worker keeps.
          const id = reader.objects.indexOf(came, first);
          if (id >= 0) reader.objects[id] = state.kept;
        }
        assign(state.kept ?? came);
        return;
      }
      default:
        throw new MalformedHeader('a kind of variable is unknown');
    }
  }

  private moduleState(): ReturnType<typeof stateOf> {
    const module = this.strings[this.reader.varint()];
    if (module === undefined) throw new MalformedHeader('a module is missing');
    const name = this.reader.text();
    return stateOf(module, name, this.reader.text());
  }

  private outerArguments(code: Code, outerArguments: unknown[]): void {
    if ((code.flags & CODE_OUTER_ARGUMENTS) === 0) return;
    const list = this.reader.value();
    if (!Array.isArray(list)) throw new MalformedHeader('arguments are missing');
    outerArguments.push(...(list as unknown[]));
  }

  private prototype(value: CallableFunction): void {
    const { reader } = this;
    const kind: PrototypeKind = reader.byte();
    if (kind === PrototypeKind.Extended) {
      const prototype = value.prototype as object;
      const parent = reader.value() as object | null;
      if (parent !== Object.getPrototypeOf(prototype)) Object.setPrototypeOf(prototype, parent);
      readProperties(reader, prototype);
    } else if (kind === PrototypeKind.Replaced) {
      reader.slot((prototype) => {
        value.prototype = prototype;
      });
    }
  }

  private own(value: CallableFunction): void {
    readProperties(this.reader, value);
    if (this.reader.byte() === 1) {
      this.reader.slot((prototype) => Object.setPrototypeOf(value, prototype as object | null));
    }
    setExtensibility(value, this.reader.byte());
  }
}

defineReaders({
  [Tag.Function]: (reader) => reader.functions.function(),
  [Tag.Class]: (reader) => reader.functions.class(),
  [Tag.Bound]: (reader) => reader.functions.bound(),
  [Tag.Builtin]: (reader) => reader.functions.builtin(),
  [Tag.Import]: (reader) => reader.functions.import(),
  [Tag.Require]: (reader) => reader.functions.require(),
  [Tag.PrototypeOf]: (reader) => reader.functions.prototypeOf(),
  [Tag.Member]: (reader) => reader.functions.member(),
  [Tag.Self]: (reader) => reader.functions.self(),
});
