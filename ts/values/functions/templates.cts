/** The compiled form of a function's text, made once per place in a script. */

import { Refusal } from '../refusal.cjs';
import type { Analysis } from './analysis.cjs';
import { analyse } from './analysis.cjs';
import { isUserGlobal } from './builtins.cjs';
import type { Internals, Scope } from './inspector.cjs';
import type { ClassParts, WrapperNames } from './rewriting.cjs';
import { classParts, freePrefix, rewrite, wrapperNames } from './rewriting.cjs';
import type { Script } from './scripts.cjs';
import { declaringVariable } from './scripts.cjs';
import type { SyntaxNode } from './syntax.cjs';
import { childrenOf, Form, isFunction, parseProgram } from './syntax.cjs';

/** A variable that a function takes from outside. */
export interface TemplateVariable {
  readonly name: string;
  /** Something may assign it: all functions that see it must see that. */
  readonly isCell: boolean;
  /** Needed while the class is made. */
  readonly isEager: boolean;
  /** The properties that are read of it, when nothing else is done with it. */
  readonly members: readonly string[] | undefined;
}

/** What a function's place in a script says about it, whatever its variables hold. */
export interface Template {
  readonly script: Script;
  /** Names the place. */
  readonly key: string;
  readonly analysis: Analysis;
  readonly names: WrapperNames;
  /** The text to compile. */
  readonly text: string;
  readonly line: number;
  readonly column: number;
  readonly offset: number;
  readonly isStrict: boolean;
  readonly variables: readonly TemplateVariable[];
  /** Names found in no scope, when the template was made. */
  readonly globals: readonly string[];
  /** Undefined for functions. */
  readonly class: (ClassParts & { readonly members: ReadonlySet<string> }) | undefined;
}

const templates = new Map<string, Template>();
const MOST_TEMPLATES = 5000;

/** The template of a function. */
export function templateOf(value: CallableFunction, internals: Internals, script: Script): Template {
  const { location, scopes } = internals as Internals & { location: NonNullable<Internals['location']> };
  const text = Function.prototype.toString.call(value);
  const key = `${script.facts.id}:${location.line}:${location.column}:${text.length}`;
  let template = templates.get(key);
  if (template === undefined || template.globals.some(isUserGlobal)) {
    template = makeTemplate(value, text, script.offsetOf(location), key, scopes, script);
    if (templates.size >= MOST_TEMPLATES) templates.clear();
    templates.set(key, template);
  }
  return template;
}

function makeTemplate(
  value: CallableFunction,
  text: string,
  near: number,
  key: string,
  scopes: readonly Scope[],
  script: Script,
): Template {
  let analysis: Analysis;
  try {
    analysis = analyse(text);
  } catch (error) {
    throw new Refusal(`its source cannot be parsed (${(error as Error).message})`);
  }
  // The debugger points behind the name, sometimes into the parameters: the text starts at or before that.
  const found = script.source.lastIndexOf(text, near);
  const offset = found < 0 ? near : found;
  refuseUnsendable(analysis, script, offset);

  const names = wrapperNames(freePrefix(text));
  const variables: TemplateVariable[] = [];
  const globals: string[] = [];
  const byName = new Map<string, boolean>();
  for (const { name, eager } of analysis.references) byName.set(name, byName.get(name) === true || eager);
  for (const [name, isEager] of byName) {
    const scope = scopes.find((each) => name in each.variables);
    if (scope === undefined) globals.push(name);
    if (scope === undefined && !isUserGlobal(name)) continue;
    const declared = declaringVariable(script, name);
    // An import that leads to no module of the user's is a package's: it is imported again.
    const isImport = declared.script === script && script.importOf(name) !== undefined;
    const isCell = scope !== undefined && !isImport && declared.script.mayAssign(declared.name);
    variables.push({ name, isCell, isEager, members: membersRead(analysis, name) });
  }
  const cells = new Set(variables.filter(({ isCell }) => isCell).map(({ name }) => name));
  const position = placeOf(script, offset);
  return {
    script,
    key,
    analysis,
    names,
    text: rewrite(analysis, cells, names),
    ...position,
    offset,
    isStrict: isStrict(value, analysis, script),
    variables,
    globals: globals.filter((name) => !variables.some((variable) => variable.name === name)),
    class:
      analysis.root.type === 'ClassExpression'
        ? { ...classParts(analysis.root), members: memberTexts(analysis) }
        : undefined,
  };
}

function membersRead({ references }: Analysis, name: string): string[] | undefined {
  const members = new Set<string>();
  for (const reference of references) {
    if (reference.name !== name) continue;
    if (reference.member === undefined) return undefined;
    members.add(reference.member);
  }
  return [...members];
}

function refuseUnsendable(analysis: Analysis, script: Script, offset: number): void {
  const { form } = analysis;
  const isExpression = form === Form.Expression;
  if (analysis.usesThis && !isTopLevelOfModule(script, offset)) {
    throw new Refusal(
      'is an arrow function that uses `this` of the function around it, which cannot be read',
      'Write `const self = this` around it and use self',
    );
  }
  if (analysis.usesEval) throw new Refusal('calls eval directly: what it captures cannot be known');
  if (analysis.usesNewTarget) throw new Refusal('uses new.target of the function around it');
  if (analysis.usesSuper && isExpression) throw new Refusal('is an arrow function that uses `super`');
  if ((analysis.usesSuper && form === Form.ClassMember) || (analysis.usesPrivateNames && !isExpression)) {
    throw new Refusal(
      'is a method taken from its class that uses `super` or a private name',
      'Capture the class or an instance instead',
    );
  }
  if (analysis.root['key']?.type === 'PrivateIdentifier')
    throw new Refusal('is a private method, taken from its class');
  if (analysis.usesPrivateNames && analysis.root.type !== 'ClassExpression' && !definesClass(analysis.root)) {
    throw new Refusal('uses a private name of a class around it', 'Capture the class or an instance instead');
  }
  for (const { specifier } of analysis.dynamicImports) {
    if (typeof specifier === 'string' && /^[./#]/.test(specifier)) {
      throw new Refusal(
        `imports ${specifier} while it runs, relative to its own file`,
        'Import it at the top of the file, or send the working directory along',
      );
    }
  }
}

function definesClass(node: SyntaxNode): boolean {
  if (node.type === 'ClassDeclaration' || node.type === 'ClassExpression') return true;
  for (const child of childrenOf(node)) if (definesClass(child)) return true;
  return false;
}

/** Whether `this` at a place of a module is the module's own, which is undefined everywhere. */
function isTopLevelOfModule(script: Script, offset: number): boolean {
  if (!script.facts.isModule) return false;
  let owned = false;
  const visit = (node: SyntaxNode): void => {
    if (node.start < offset && (bindsThis(node) || node.type === 'PropertyDefinition')) owned = true;
    for (const child of childrenOf(node)) if (child.start <= offset && offset < child.end) visit(child);
  };
  visit(parseProgram(script.source, true));
  return !owned;
}

function bindsThis(node: SyntaxNode): boolean {
  return node.type === 'StaticBlock' || (isFunction(node) && node.type !== 'ArrowFunctionExpression');
}

const USE_STRICT = /^(\s|\/\/[^\n]*\n|\/\*[\s\S]*?\*\/|#![^\n]*\n)*(\(function\([^)]*\)\{)?(["'])use strict\3/;

/** V8 does not say whether a function is strict; its properties do for plain functions, its script for the others. */
function isStrict(value: CallableFunction, analysis: Analysis, script: Script): boolean {
  if (script.facts.isModule || USE_STRICT.test(script.source)) return true;
  const { root } = analysis;
  return root.type === 'FunctionExpression' && !root['async'] && !root['generator'] && !Object.hasOwn(value, 'caller');
}

function placeOf(script: Script, offset: number): { line: number; column: number } {
  let line = 0;
  let start = 0;
  for (;;) {
    const next = script.source.indexOf('\n', start);
    if (next < 0 || next >= offset) break;
    line++;
    start = next + 1;
  }
  const { startLine, startColumn } = script.facts;
  return { line: line + startLine, column: offset - start + (line === 0 ? startColumn : 0) };
}

/** The texts of a class's members, by which its functions are told from those added later. */
function memberTexts(analysis: Analysis): ReadonlySet<string> {
  const texts = new Set<string>();
  for (const member of analysis.root['body'].body as SyntaxNode[]) {
    if (member.type !== 'MethodDefinition') continue;
    const text = analysis.text.slice(member.start - analysis.offset, member.end - analysis.offset);
    texts.add(text.replace(/^static\s+/, ''));
  }
  return texts;
}
