/** The text of one function, as V8 keeps it, parsed. Types are gone by then, whatever the source was. */
import type { Options } from 'acorn';
import { parse } from 'acorn';

/** A node of the syntax tree; its further fields depend on its type. */
export interface SyntaxNode {
  readonly type: string;
  readonly start: number;
  readonly end: number;
  readonly [field: string]: any;
}

/** How the text reads on its own: an expression, a method of an object literal, or a member of a class. */
export enum Form {
  Expression,
  Method,
  ClassMember,
}

/** A parsed function or class. */
export interface FunctionSyntax {
  readonly form: Form;
  /** The text that was parsed: without a leading `static`, which would not stand in an object. */
  readonly text: string;
  /** The function or class expression, or the property or member that holds it. */
  readonly root: SyntaxNode;
  /** What lies before the text in the positions of the tree. */
  readonly offset: number;
}

const OPTIONS: Options = {
  ecmaVersion: 'latest',
  sourceType: 'script',
  allowReturnOutsideFunction: true,
  allowImportExportEverywhere: true,
  allowSuperOutsideMethod: true,
  allowAwaitOutsideFunction: true,
  checkPrivateFields: false,
};

/** Function text comes in three spellings; each needs another wrapper before it is an expression. */
const SPELLINGS: readonly (readonly [before: string, after: string, form: Form])[] = [
  ['(', '\n)', Form.Expression],
  ['({', '\n})', Form.Method],
  ['(class{', '\n})', Form.ClassMember],
];

/** Parses the text of a function; throws acorn's error when no spelling fits. */
export function parseFunction(original: string): FunctionSyntax {
  const text = original.replace(/^static\s+(?![=(])/, '');
  let failure: unknown;
  for (const [before, after, form] of SPELLINGS) {
    try {
      const program = parse(before + text + after, OPTIONS) as unknown as SyntaxNode;
      const expression = program['body'][0].expression as SyntaxNode;
      let root = expression;
      if (form === Form.Method) root = expression['properties'][0];
      else if (form === Form.ClassMember) root = expression['body'].body[0];
      return { form, text, root, offset: before.length };
    } catch (error) {
      failure ??= error;
    }
  }
  throw failure;
}

/** Parses a whole script or module. */
export function parseProgram(source: string, isModule: boolean): SyntaxNode {
  const options: Options = { ...OPTIONS, sourceType: isModule ? 'module' : 'script', allowHashBang: true };
  return parse(source, options) as unknown as SyntaxNode;
}

/** The nodes directly below a node. */
export function* childrenOf(node: SyntaxNode): Generator<SyntaxNode> {
  for (const field in node) {
    const value: unknown = node[field];
    if (value === null || typeof value !== 'object') continue;
    if (Array.isArray(value)) {
      for (const item of value as (SyntaxNode | null)[]) if (typeof item?.type === 'string') yield item;
    } else if (typeof (value as SyntaxNode).type === 'string') {
      yield value as SyntaxNode;
    }
  }
}

/** Whether a node starts a function. */
export function isFunction(node: SyntaxNode): boolean {
  return (
    node.type === 'FunctionExpression' || node.type === 'FunctionDeclaration' || node.type === 'ArrowFunctionExpression'
  );
}

/** The names that a pattern binds. */
export function boundNames(pattern: SyntaxNode | null, add: (name: string) => void): void {
  switch (pattern?.type) {
    case 'Identifier':
      add(pattern['name']);
      break;
    case 'ObjectPattern':
      for (const property of pattern['properties']) {
        boundNames(property.type === 'RestElement' ? property.argument : property.value, add);
      }
      break;
    case 'ArrayPattern':
      for (const element of pattern['elements']) boundNames(element, add);
      break;
    case 'AssignmentPattern':
      boundNames(pattern['left'], add);
      break;
    case 'RestElement':
      boundNames(pattern['argument'], add);
      break;
  }
}

/** The `var` names of a function body, which belong to the whole of it, and functions declared at its top. */
export function hoistedNames(node: SyntaxNode, add: (name: string) => void): void {
  if (isFunction(node) || node.type === 'ClassDeclaration' || node.type === 'ClassExpression') return;
  if (node.type === 'VariableDeclaration' && node['kind'] === 'var') {
    for (const declarator of node['declarations']) boundNames(declarator.id, add);
  }
  for (const child of childrenOf(node)) hoistedNames(child, add);
}

/** The names that a list of statements declares for its own block. */
export function lexicalNames(statements: readonly SyntaxNode[], add: (name: string) => void): void {
  for (const statement of statements) {
    if (statement.type === 'VariableDeclaration' && statement['kind'] !== 'var') {
      for (const declarator of statement['declarations']) boundNames(declarator.id, add);
    } else if (statement.type === 'ClassDeclaration' || statement.type === 'FunctionDeclaration') {
      if (statement['id'] !== null) add(statement['id'].name);
    } else if (statement.type === 'LabeledStatement') {
      lexicalNames([statement['body']], add);
    } else if (/^Export(Named|Default)Declaration$/.test(statement.type) && statement['declaration']) {
      lexicalNames([statement['declaration']], add);
    } else if (statement.type === 'ImportDeclaration') {
      for (const binding of statement['specifiers']) add(binding.local.name);
    }
  }
}
