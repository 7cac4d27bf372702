/**
 * Writes functions and classes into the same graph as data. A function's record makes the function; what it captures
 * and owns follows later, in the order in which the functions were met, so that functions may refer to each other.
 */
import { types } from 'node:util';
import { FLAG_CODE, FLAG_MODULES, Tag } from '../format.cjs';
import { hooks } from '../hooks.cjs';
import { classes } from '../identity.cjs';
import { isFunctionPrototype, ownPrototype } from '../kinds.cjs';
import { writeProperties } from '../object-writer.cjs';
import { Step } from '../path.cjs';
import { Refusal } from '../refusal.cjs';
import { Writer } from '../writer.cjs';
import { isNative } from './builtins.cjs';
import type { Captured, CapturedCell } from './capture.cjs';
import { Capture } from './capture.cjs';
import { CodeTable } from './code-table.cjs';
import { Fingerprints } from './fingerprints.cjs';
import type { Internals } from './inspector.cjs';
import { NamedValues } from './named.cjs';
import { counters, holdsState, isCounter, isNamespace, membersOf, viteModule } from './namespaces.cjs';
import type { PrivateParts } from './prototypes.cjs';
import { checkPrototype } from './prototypes.cjs';
import type { ModuleVariable } from './scripts.cjs';
import type { Template, TemplateVariable } from './templates.cjs';
import { MEMBER_GET, MEMBER_SET, MEMBER_VALUE, PrototypeKind, VariableKind } from './wire.cjs';

interface Member {
  readonly type: CallableFunction;
  readonly isStatic: boolean;
  readonly key: string | symbol;
  readonly half: number;
}

const NO_MEMBERS: ReadonlySet<string> = new Set();

export class FunctionWriter {
  readonly out: Writer;
  readonly capture: Capture;
  readonly named: NamedValues;
  /** Set while a fingerprint is taken: variables of modules are named to it, not written. */
  readonly fingerprinted: ((variable: ModuleVariable, captured: Captured) => void) | undefined;
  private readonly code = new CodeTable();
  private readonly isFork: boolean;
  private readonly userPrototypes = new Map<object, boolean>();
  private readonly prototypes = new Map<object, PrivateParts | undefined>();
  private readonly fingerprints: Fingerprints;
  private readonly cells = new Map<CapturedCell, number>();
  private readonly moduleValues = new Set<string>();
  private readonly narrow = new Map<object, Map<string, object>>();
  private readonly members = new Map<CallableFunction, Member>();
  private readonly pending: { path: string; write: () => void }[] = [];
  private flushed = 0;

  constructor(out: Writer, parent?: FunctionWriter, fingerprinted?: FunctionWriter['fingerprinted']) {
    this.out = out;
    this.capture = parent?.capture ?? new Capture(hooks().packageName);
    this.isFork = parent !== undefined;
    this.fingerprints = parent?.fingerprints ?? new Fingerprints((named) => this.fork(named));
    this.named = parent?.named ?? new NamedValues(this.capture);
    this.fingerprinted = fingerprinted;
  }

  /** Ends the capture, however the message ended. */
  end(): void {
    if (!this.isFork) this.capture.end();
  }

  private fork(named: NonNullable<FunctionWriter['fingerprinted']>): Writer {
    const writer = new Writer();
    writer.begin('$');
    writer.useFunctions(new FunctionWriter(writer, this, named));
    return writer;
  }

  /** Writes a function or class that the message does not hold yet. `holder` is the object whose property it is. */
  write(value: CallableFunction, holder: object | undefined): void {
    this.out.flags |= FLAG_CODE;
    const member = this.members.get(value);
    if (member !== undefined) {
      this.writeMember(value, member);
      return;
    }
    if (this.writeNamed(value)) return;
    const internals = this.capture.internalsOf(value);
    if (internals.bound !== undefined) {
      this.writeBound(value, internals.bound);
      return;
    }
    const template = this.capture.templateOf(value);
    if (template === undefined) {
      const name = value.name || 'an anonymous one';
      throw new Refusal(
        isNative(value)
          ? `is the native function ${name}, which no global and no loaded module of Node shows`
          : `is ${name}, a function inside Node that no module shows`,
        'Call it through its module inside the function',
      );
    }
    if (template.class === undefined) this.writeFunction(value, template, holder);
    else this.writeClass(value, template, internals);
  }

  /** Writes a value that the other side finds by a name: builtins, exports of packages and of this package. */
  writeNamed(value: object): boolean {
    const { out } = this;
    const found = this.named.find(value);
    if (found === undefined) return false;
    if (found.how === 'prototype') {
      this.writePrototype(value);
      return true;
    }
    out.flags |= FLAG_CODE;
    out.register(value);
    if (found.how === 'self') {
      out.byte(Tag.Self);
      out.string(found.name, Tag.Latin1);
    } else if (found.how === 'builtin') {
      out.byte(Tag.Builtin);
      out.varint(found.path.length);
      for (const key of found.path) out.string(key, Tag.Latin1);
    } else if (found.how === 'require') {
      out.byte(Tag.Require);
      out.string(found.directory, Tag.Latin1);
    } else {
      this.writeImport(found.module, found.name);
    }
    return true;
  }

  private writeImport(module: Parameters<CodeTable['module']>[0], name: string): void {
    this.out.byte(Tag.Import);
    this.out.varint(this.code.module(module));
    this.out.string(name, Tag.Latin1);
  }

  /** Whether instances with this prototype are the program's, not a namespace or a singleton of the runtime. */
  isUserPrototype(prototype: object): boolean {
    let isUser = this.userPrototypes.get(prototype);
    if (isUser === undefined) {
      const type: unknown = (prototype as { constructor?: unknown }).constructor;
      isUser =
        typeof type === 'function' && !isNative(type) && this.capture.scriptOf(type)?.url.startsWith('node:') === false;
      this.userPrototypes.set(prototype, isUser);
    }
    return isUser;
  }

  /** Refuses what lives in this process only; returns the private names that instances of this prototype own. */
  checkPrototype(value: object, prototype: object): PrivateParts | undefined {
    if (!this.prototypes.has(prototype)) this.prototypes.set(prototype, checkPrototype(this, value, prototype));
    return this.prototypes.get(prototype);
  }

  /** Writes the private fields of an instance. */
  writePrivateFields(value: object, { owners }: PrivateParts): void {
    const { out } = this;
    const { fields } = this.capture.internalsOf(value);
    out.varint(fields.length);
    out.path.depth++;
    for (const field of fields) {
      const owner = owners.get(field.name);
      if (owner === undefined) throw new Refusal(`has a private field ${field.name} of an unknown class`);
      out.path.at(Step.Label, field.name);
      out.value(owner);
      out.string(field.name, Tag.Latin1);
      out.slot(field.value);
    }
    out.path.depth--;
  }

  /** Writes the prototype of an instance. */
  writePrototype(prototype: object): void {
    const { out } = this;
    if (out.backReference(prototype)) return;
    const type: unknown = Object.getOwnPropertyDescriptor(prototype, 'constructor')?.value;
    if (typeof type !== 'function' || type.prototype !== prototype) {
      out.value(prototype);
      return;
    }
    out.flags |= FLAG_CODE;
    const id = out.register(prototype);
    out.incomplete.add(id);
    out.byte(Tag.PrototypeOf);
    out.value(type);
    out.incomplete.delete(id);
  }

  /** Writes what functions owe, until none does. */
  flush(): void {
    const { path } = this.out;
    while (this.flushed < this.pending.length) {
      const body = this.pending[this.flushed++] as (typeof this.pending)[number];
      const outer = path.rebase(body.path);
      this.out.attempt(body.write);
      path.restore(outer);
    }
  }

  /** Writes the table of code, at the end of the message. */
  writeCode(): void {
    this.code.writeCode(this.out);
  }

  /** Writes the modules to import; returns whether there are any. */
  writeModules(): void {
    if (this.code.writeModules(this.out)) this.out.flags |= FLAG_MODULES;
  }

  private writeMember(value: CallableFunction, { type, isStatic, key, half }: Member): void {
    const { out } = this;
    out.register(value);
    out.byte(Tag.Member);
    out.value(type);
    out.byte(isStatic ? 1 : 0);
    out.byte(half);
    out.value(key);
  }

  private writeBound(value: CallableFunction, bound: NonNullable<Internals['bound']>): void {
    const { out } = this;
    const id = out.register(value);
    out.incomplete.add(id);
    out.byte(Tag.Bound);
    out.path.depth++;
    out.path.at(Step.Label, 'bound target');
    out.value(bound.target);
    out.path.at(Step.Label, 'bound this');
    out.value(bound.self);
    out.varint(bound.arguments.length);
    for (const argument of bound.arguments) {
      out.path.at(Step.Label, 'bound argument');
      out.value(argument);
    }
    out.path.depth--;
    out.incomplete.delete(id);
    this.later(() => this.writeOwn(value, ['length', 'name']));
  }

  private writeFunction(value: CallableFunction, template: Template, holder: object | undefined): void {
    const { out } = this;
    out.register(value);
    out.byte(Tag.Function);
    out.varint(this.code.code(template));
    this.later(() => {
      this.writeVariables(value, template, holder, false);
      if (template.analysis.usesSuper) this.writeHome(holder);
      this.writeOuterArguments(value, template);
      this.writeFunctionPrototype(value);
      this.writeOwn(value, ['length', 'prototype', 'arguments', 'caller']);
    });
  }

  private writeClass(value: CallableFunction, template: Template, internals: Internals): void {
    const { out } = this;
    const parts = template.class as NonNullable<Template['class']>;
    const id = out.register(value);
    out.incomplete.add(id);
    out.byte(Tag.Class);
    out.varint(this.code.code(template));
    out.string(classes.idOf(value), Tag.Latin1);
    this.noteMembers(value, parts.members);
    if (parts.hasSuperclass) {
      out.path.depth++;
      out.path.at(Step.Label, 'superclass');
      out.value(Object.getPrototypeOf(value));
      out.path.depth--;
    }
    if (template.variables.some(({ isEager }) => isEager)) {
      this.writeVariables(value, template, undefined, true);
      // A computed key may call a function.
      this.flush();
    }
    out.incomplete.delete(id);
    this.later(() => {
      this.writeVariables(value, template, undefined, false);
      this.writeOuterArguments(value, template);
      out.varint(internals.fields.length);
      out.path.depth++;
      for (const field of internals.fields) {
        out.path.at(Step.Label, `static ${field.name}`);
        out.string(field.name, Tag.Latin1);
        out.slot(field.value);
      }
      out.path.depth--;
      const prototype = value.prototype as object;
      out.path.depth++;
      out.path.at(Step.Property, 'prototype');
      writeProperties(out, prototype, this.added(prototype, ['constructor'], parts.members));
      out.path.depth--;
      const skipped = parts.lengthChanged ? ['prototype'] : ['length', 'prototype'];
      this.writeOwn(value, skipped, parts.members);
    });
  }

  /** The class's own functions come back with its text; elsewhere in the message they are named by their place. */
  private noteMembers(type: CallableFunction, texts: ReadonlySet<string>): void {
    for (const [object, isStatic] of [
      [type, true],
      [type.prototype as object, false],
    ] as const) {
      for (const key of Reflect.ownKeys(object)) {
        if (key === 'constructor' || key === 'prototype') continue;
        const property = Object.getOwnPropertyDescriptor(object, key) as PropertyDescriptor;
        const halves: [unknown, number][] = [
          [property.value, MEMBER_VALUE],
          [property.get, MEMBER_GET],
          [property.set, MEMBER_SET],
        ];
        for (const [value, half] of halves) {
          if (isMember(value, texts) && !this.members.has(value))
            this.members.set(value, { type, isStatic, key, half });
        }
      }
    }
  }

  /** The own keys that a class's text does not make. */
  private added(object: object, skipped: readonly string[], texts: ReadonlySet<string>): (string | symbol)[] {
    return Reflect.ownKeys(object).filter((key) => {
      if (skipped.includes(key as string)) return false;
      const { value, get, set } = Object.getOwnPropertyDescriptor(object, key) as PropertyDescriptor;
      const functions = [value as unknown, get, set].filter((each) => typeof each === 'function');
      return functions.length === 0 || !functions.every((each) => isMember(each, texts));
    });
  }

  private writeVariables(
    value: CallableFunction,
    template: Template,
    holder: object | undefined,
    eager: boolean,
  ): void {
    const { path } = this.out;
    path.depth++;
    for (const variable of template.variables) {
      if (variable.isEager !== eager) continue;
      path.at(Step.Captured, variable.name);
      this.out.attempt(() => {
        const captured = this.capture.captured(value, template, variable, holder);
        this.writeVariable(this.narrowed(captured, variable, template));
      });
    }
    path.depth--;
  }

  /** In place of a module's exports those of their members that are read, and nothing in place of what counts them. */
  private narrowed(captured: Captured, { name, members }: TemplateVariable, { script }: Template): Captured {
    const value = captured.how === 'cell' ? captured.cell.value : captured.how === 'value' ? captured.value : undefined;
    if (isCounter(name, value, script)) return { how: 'value', value: counters, module: undefined };
    if (!isNamespace(name, value, script)) return captured;
    if (members === undefined) {
      const module = viteModule(name, script);
      return module === undefined ? captured : { how: 'import', module, name: '*', value };
    }
    if (holdsState(value, members)) return captured;
    // What is found by name as a whole goes by its name.
    if (!types.isProxy(value) && this.named.find(value) !== undefined) return captured;
    const key = members.join();
    let made = this.narrow.get(value);
    if (made === undefined) {
      made = new Map();
      this.narrow.set(value, made);
    }
    let part = made.get(key);
    if (part === undefined) {
      part = membersOf(value, members, this.capture);
      made.set(key, part);
    }
    return { how: 'value', value: part, module: undefined };
  }

  private writeVariable(captured: Captured): void {
    const { out } = this;
    switch (captured.how) {
      case 'self':
        out.byte(VariableKind.Value);
        this.writeSelf(captured.name);
        return;
      case 'import':
        out.byte(VariableKind.Value);
        this.writeImported(captured);
        return;
      case 'cell':
        this.writeCell(captured);
        return;
      default:
        this.writeValue(captured);
    }
  }

  private writeSelf(name: string): void {
    const { out } = this;
    const exports = hooks().resolveSelf() as Record<string, object>;
    const value = name === '*' || name === 'default' ? exports : exports[name];
    if (typeof value !== 'object' && typeof value !== 'function') {
      out.value(value);
    } else if (!out.backReference(value)) {
      out.register(value);
      out.byte(Tag.Self);
      out.string(value === exports ? '*' : name, Tag.Latin1);
    }
  }

  private writeImported({ module, name, value }: Captured & { how: 'import' }): void {
    const { out } = this;
    const isObject = (typeof value === 'object' && value !== null) || typeof value === 'function';
    if (isObject && out.backReference(value as object)) return;
    // Even an import without an identity takes a number on the other side.
    out.register(isObject ? (value as object) : { module, name });
    this.writeImport(module, name);
  }

  private writeCell(captured: Captured & { how: 'cell' }): void {
    const { out } = this;
    const { cell } = captured;
    if (cell.module !== undefined && this.fingerprinted !== undefined) {
      this.fingerprinted(cell.module, captured);
      out.byte(VariableKind.Cell);
      out.string(`${cell.module.script.key}:${cell.module.name}`, Tag.Latin1);
      return;
    }
    const number = this.cells.get(cell);
    if (number !== undefined) {
      out.byte(VariableKind.Cell);
      out.varint(number);
      return;
    }
    this.cells.set(cell, this.cells.size);
    if (cell.module === undefined) {
      out.byte(VariableKind.NewCell);
    } else {
      out.byte(VariableKind.ModuleCell);
      this.writeModuleVariable(cell.module, captured);
    }
    out.slot(cell.value);
  }

  private writeValue(captured: Captured & { how: 'value' }): void {
    const { out } = this;
    const { value, module } = captured;
    // Functions reach state through their own variables; classes have an identity; constants have no state.
    if (module === undefined || typeof value !== 'object' || value === null) {
      out.byte(VariableKind.Value);
      out.slot(value);
      return;
    }
    if (this.fingerprinted !== undefined) {
      this.fingerprinted(module, captured);
      out.byte(VariableKind.Value);
      out.string(`${module.script.key}:${module.name}`, Tag.Latin1);
      return;
    }
    const key = `${module.script.key}:${module.name}`;
    if (this.moduleValues.has(key) || out.identity(value) !== undefined) {
      out.byte(VariableKind.Value);
    } else {
      this.moduleValues.add(key);
      out.byte(VariableKind.ModuleValue);
      this.writeModuleVariable(module, captured);
    }
    out.slot(value);
  }

  private writeModuleVariable(module: ModuleVariable, captured: Captured): void {
    const { out } = this;
    out.varint(this.code.string(module.script.key));
    out.string(module.name, Tag.Latin1);
    out.string(this.fingerprints.of(module, captured), Tag.Latin1);
  }

  private writeHome(holder: object | undefined): void {
    if (holder === undefined) {
      throw new Refusal('is a method that uses `super`, away from its object', 'Capture the object instead');
    }
    this.out.slot(Object.getPrototypeOf(holder));
  }

  private writeOuterArguments(value: CallableFunction, template: Template): void {
    if (template.analysis.outerArguments.length === 0) return;
    const { scopes } = this.capture.internalsOf(value);
    const scope = scopes.find((each) => 'arguments' in each.variables);
    if (scope === undefined) throw new Refusal('uses `arguments` of the function around it, which cannot be read');
    this.out.path.depth++;
    this.out.path.at(Step.Captured, 'arguments');
    this.out.value(Array.from(scope.variables['arguments'] as ArrayLike<unknown>));
    this.out.path.depth--;
  }

  private writeFunctionPrototype(value: CallableFunction): void {
    const { out } = this;
    const prototype: unknown = Object.getOwnPropertyDescriptor(value, 'prototype')?.value;
    if (typeof prototype !== 'object' || prototype === null) {
      out.byte(PrototypeKind.Untouched);
      return;
    }
    const isOwn = Object.getOwnPropertyDescriptor(prototype, 'constructor')?.value === value;
    const isGenerator = !isOwn && Reflect.ownKeys(prototype).length === 0;
    out.path.depth++;
    out.path.at(Step.Property, 'prototype');
    if (isOwn) {
      const keys = Reflect.ownKeys(prototype).filter((key) => key !== 'constructor');
      const found = Object.getPrototypeOf(prototype) as object | null;
      const parent = found === null ? null : ownPrototype(found);
      if (keys.length === 0 && parent === Object.prototype) {
        out.byte(PrototypeKind.Untouched);
      } else {
        out.byte(PrototypeKind.Extended);
        if (parent === null) out.byte(Tag.Null);
        else this.writePrototype(parent);
        writeProperties(out, prototype, keys);
      }
    } else if (isGenerator) {
      out.byte(PrototypeKind.Untouched);
    } else {
      out.byte(PrototypeKind.Replaced);
      out.slot(prototype);
    }
    out.path.depth--;
  }

  /** Own properties, own prototype and extensibility of the function itself. */
  private writeOwn(value: CallableFunction, skipped: readonly string[], texts?: ReadonlySet<string>): void {
    const { out } = this;
    writeProperties(out, value, this.added(value, skipped, texts ?? NO_MEMBERS));
    const prototype = Object.getPrototypeOf(value) as object | null;
    const isChanged = texts === undefined && !isFunctionPrototype(prototype);
    out.byte(isChanged ? 1 : 0);
    if (isChanged) out.slot(prototype);
    out.byte(Object.isFrozen(value) ? 3 : Object.isSealed(value) ? 2 : Object.isExtensible(value) ? 0 : 1);
  }

  private later(write: () => void): void {
    this.pending.push({ path: this.out.path.toString(), write });
  }
}

function isMember(value: unknown, texts: ReadonlySet<string>): value is CallableFunction {
  return typeof value === 'function' && texts.has(Function.prototype.toString.call(value).replace(/^static\s+/, ''));
}
