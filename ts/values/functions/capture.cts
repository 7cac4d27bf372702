/** What one encode knows of the functions it meets: their variables, and which of them share a scope. */
import { Refusal } from '../refusal.cjs';
import { Cell } from './cell.cjs';
import type { Internals, Scope } from './inspector.cjs';
import { endInspection, inspectInternals } from './inspector.cjs';
import { isViteModule } from './namespaces.cjs';
import type { ImportedModule } from './packages.cjs';
import { directoryOf, importedModule, requiredExports } from './packages.cjs';
import { WRAPPER_HEAD } from './rewriting.cjs';
import type { ModuleVariable, Script } from './scripts.cjs';
import { declaringVariable, scriptById } from './scripts.cjs';
import type { Template, TemplateVariable } from './templates.cjs';
import { templateOf } from './templates.cjs';
import { isUninitialised } from './uninitialised.cjs';

/** One captured variable. */
export type Captured =
  | { readonly how: 'import'; readonly module: ImportedModule; readonly name: string; readonly value: unknown }
  | { readonly how: 'self'; readonly name: string }
  | { readonly how: 'value'; readonly value: unknown; readonly module: ModuleVariable | undefined }
  | { readonly how: 'cell'; readonly cell: CapturedCell };

/** A variable that several functions may share and assign. */
export interface CapturedCell {
  readonly value: unknown;
  readonly module: ModuleVariable | undefined;
}

interface Environment {
  readonly key: string;
  readonly variables: Record<string, unknown>;
  readonly members: { readonly value: CallableFunction; readonly place: string; readonly holder: object | undefined }[];
  readonly cells: Map<string, CapturedCell>;
}

/** The state of one encode. */
export class Capture {
  private readonly internals = new Map<object, Internals>();
  private readonly revived = new Map<Cell, CapturedCell>();
  private readonly environments: Environment[] = [];
  private readonly moduleCells = new Map<string, CapturedCell>();
  private requirable: Map<unknown, string> | undefined;
  readonly packageName: string;

  constructor(packageName: string) {
    this.packageName = packageName;
  }

  end(): void {
    endInspection();
  }

  /** The file whose `module.exports` a value is. */
  requiredFile(value: object): string | undefined {
    this.requirable ??= requiredExports();
    return this.requirable.get(value);
  }

  /** What the debugger says of a function or an object. */
  internalsOf(value: object): Internals {
    let internals = this.internals.get(value);
    if (internals === undefined) {
      internals = inspectInternals(value);
      this.internals.set(value, internals);
    }
    return internals;
  }

  /** The script of a function; native functions have none. */
  scriptOf(value: CallableFunction): Script | undefined {
    const { location } = this.internalsOf(value);
    return location === undefined ? undefined : scriptById(location.scriptId);
  }

  /** The form in which a function travels; undefined when it has no text of its own. */
  templateOf(value: CallableFunction): Template | undefined {
    const script = this.scriptOf(value);
    if (script === undefined || script.url.startsWith('node:')) return undefined;
    return templateOf(value, this.internalsOf(value), script);
  }

  /** The export of its own module under which a function is found. */
  exportOf(value: CallableFunction): string | undefined {
    const script = this.scriptOf(value);
    const scope = this.internalsOf(value).scopes.find(({ kind }) => kind === 'Module');
    if (script === undefined || scope === undefined) return undefined;
    for (const name of Object.keys(scope.variables)) {
      const exported = script.exportsOf(name)[0];
      if (exported !== undefined && scope.variables[name] === value) return exported;
    }
    return undefined;
  }

  /** One variable of a function. */
  captured(
    value: CallableFunction,
    template: Template,
    variable: TemplateVariable,
    holder: object | undefined,
  ): Captured {
    const internals = this.internalsOf(value);
    const { script } = template;
    const { name } = variable;
    const index = internals.scopes.findIndex((scope) => name in scope.variables);
    if (index < 0) return { how: 'value', value: readGlobal(name), module: undefined };
    const scope = internals.scopes[index] as Scope;
    const isModuleScope = isScopeOfModule(internals.scopes, index, script);
    if (isModuleScope) {
      const imported = this.imported(script, name, scope);
      if (imported !== undefined) return imported;
    }
    const held = readVariable(scope, name, template);
    if (held instanceof Cell) return { how: 'cell', cell: this.revivedCell(held) };
    const module = isModuleScope ? declaringVariable(script, name) : undefined;
    if (!variable.isCell) return { how: 'value', value: held, module: module && homeOf(held, module) };
    return { how: 'cell', cell: this.cell(value, scope, name, held, module, template, holder) };
  }

  /** A cell of a function that was revived here and is captured again. */
  private revivedCell(held: Cell): CapturedCell {
    let cell = this.revived.get(held);
    if (cell === undefined) {
      cell = { value: held.v, module: undefined };
      this.revived.set(held, cell);
    }
    return cell;
  }

  private imported(script: Script, name: string, scope: Scope): Captured | undefined {
    const found = script.importOf(name);
    if (found === undefined) return undefined;
    if (found.specifier === this.packageName) return { how: 'self', name: found.name };
    const module = importedModule(found.specifier, found.name, directoryOf(script.url));
    if (module === undefined) return undefined;
    let value: unknown;
    try {
      value = scope.variables[name];
    } catch {
      // A module in a cycle that has not run yet: the name is all that is needed.
    }
    return { how: 'import', module, name: found.name, value };
  }

  private cell(
    value: CallableFunction,
    scope: Scope,
    name: string,
    held: unknown,
    module: ModuleVariable | undefined,
    template: Template,
    holder: object | undefined,
  ): CapturedCell {
    if (module !== undefined) {
      const key = `${module.script.facts.id}:${module.name}`;
      let cell = this.moduleCells.get(key);
      if (cell === undefined) {
        cell = { value: held, module };
        this.moduleCells.set(key, cell);
      }
      return cell;
    }
    const environment = this.environment(value, scope, template, holder);
    let cell = environment.cells.get(name);
    if (cell === undefined) {
      cell = { value: held, module: undefined };
      environment.cells.set(name, cell);
    }
    return cell;
  }

  /**
   * V8 hands out a fresh copy of each scope, so whether two functions share one has to be inferred: from what it
   * holds, and from the object that holds the functions.
   */
  private environment(
    value: CallableFunction,
    scope: Scope,
    template: Template,
    holder: object | undefined,
  ): Environment {
    const names = Object.keys(scope.variables);
    const key = `${template.script.facts.id}|${scope.kind}|${names.join()}`;
    const place = template.key;
    const equal = this.environments.filter((each) => each.key === key && sameVariables(each, scope, names));
    const own = equal.find((each) => each.members.some((member) => member.value === value));
    if (own !== undefined) return own;
    const together = equal.filter((each) => each.members.some((member) => member.holder === holder));
    let match: Environment | undefined;
    let isUnclear = false;
    if (holder !== undefined && together.length > 0) {
      // Two functions of one text in one object come from two calls, or from a loop: nothing tells which.
      isUnclear = together.some((each) => each.members.some((member) => member.place === place));
      match = together[0];
    } else {
      const others = equal.filter((each) => !each.members.some((member) => member.place === place));
      const twins = equal.filter((each) => each.members.some((member) => member.place === place));
      isUnclear =
        others.length > 1 ||
        (twins.length > 0 && holder === undefined) ||
        twins.some((each) => each.members.some((member) => member.place === place && member.holder === undefined));
      match = others[0];
    }
    if (isUnclear) {
      throw new Refusal(
        'assigns a variable that another captured function of the same kind may share: which of them do cannot be read',
        'Keep the state in an object, or in a class',
      );
    }
    if (match === undefined) {
      match = { key, variables: scope.variables, members: [], cells: new Map() };
      this.environments.push(match);
    }
    match.members.push({ value, place, holder });
    return match;
  }
}

const homes = new WeakMap<object, ModuleVariable>();

/** An object that several modules hold in variables is the state of one: that through which it was first captured. */
function homeOf(held: unknown, module: ModuleVariable): ModuleVariable {
  if (typeof held !== 'object' || held === null) return module;
  const home = homes.get(held);
  if (home === undefined) homes.set(held, module);
  return home ?? module;
}

function sameVariables(environment: Environment, scope: Scope, names: readonly string[]): boolean {
  try {
    return names.every((name) => Object.is(environment.variables[name], scope.variables[name]));
  } catch {
    // One that is not initialised cannot be read.
    return false;
  }
}

function readGlobal(name: string): unknown {
  const property = Object.getOwnPropertyDescriptor(globalThis, name);
  if (property?.get !== undefined) throw new Refusal('is a global accessor', 'Read it first');
  return property?.value;
}

function readVariable(scope: Scope, name: string, template: Template): unknown {
  let held: unknown;
  let failed = false;
  try {
    held = scope.variables[name];
  } catch {
    failed = true;
  }
  if (failed || (held === undefined && isUninitialised(template.script, template.offset, name))) {
    throw new Refusal('is not initialised yet', 'Call .remote() after its declaration has run');
  }
  return held;
}

/** A module's own scope exists once: for CommonJS that is the outermost function, which Node wraps around the file. */
function isScopeOfModule(scopes: readonly Scope[], index: number, script: Script): boolean {
  const { kind } = scopes[index] as Scope;
  if (kind === 'Module' || kind.startsWith('Script')) return true;
  if (kind.startsWith('Block')) {
    const around = scopes.slice(index + 1).filter((scope) => !scope.kind.startsWith('Script'));
    if (around.length > 1 || around.some((scope) => !scope.kind.startsWith('Closure'))) return false;
    return isViteModule(script, Object.keys((scopes[index] as Scope).variables));
  }
  if (script.facts.isModule || !/^(file:|\/)/.test(script.url)) return false;
  if (!kind.startsWith('Closure') || script.source.startsWith(WRAPPER_HEAD)) return false;
  return scopes.slice(index + 1).every((scope) => scope.kind.startsWith('Script'));
}
