/**
 * Variables whose declaration has not run. V8 says so from Node 22 on; Node 20 shows them as `undefined`, which must not
 * be taken for a value.
 */
import type { Script } from './scripts.cjs';
import type { SyntaxNode } from './syntax.cjs';
import { boundNames, childrenOf, hoistedNames, isFunction, lexicalNames, parseProgram } from './syntax.cjs';

/** Initialisers that never give `undefined`. */
const DEFINED = new Set([
  'Literal',
  'TemplateLiteral',
  'FunctionExpression',
  'ArrowFunctionExpression',
  'ClassExpression',
  'ObjectExpression',
  'ArrayExpression',
  'NewExpression',
  'BinaryExpression',
  'UpdateExpression',
]);

interface Declaration {
  readonly node: SyntaxNode;
  readonly initialiser: SyntaxNode | null;
  /** The function, or the program, whose code makes the declaration. */
  readonly owner: SyntaxNode;
}

/** Whether `name`, seen as `undefined` by a function at `offset`, is a const, let or class still to be initialised. */
export function isUninitialised(script: Script, offset: number, name: string): boolean {
  const program = parseProgram(script.source, script.facts.isModule);
  const found = findDeclaration(program, offset, name);
  if (found === undefined) return false;
  const { node, initialiser, owner } = found;
  if (node.type === 'ClassDeclaration') return true;
  if (initialiser === null) return false;
  if (DEFINED.has(initialiser.type)) return true;
  return runningOffsets(script).some((at) => at < node.end && innermostFunction(program, at) === owner);
}

/** The let, const or class declaration that a place sees under a name. */
function findDeclaration(program: SyntaxNode, offset: number, name: string): Declaration | undefined {
  let found: Declaration | undefined;
  const visit = (node: SyntaxNode, owner: SyntaxNode): void => {
    const inside = isFunction(node) ? node : owner;
    const statements = blockStatements(node);
    if (statements !== undefined) found = declaredHere(statements, name, inside) ?? shadow(node, name, found);
    else if (isFunction(node)) found = shadow(node, name, found);
    for (const child of childrenOf(node)) if (child.start <= offset && offset < child.end) visit(child, inside);
  };
  visit(program, program);
  return found;
}

function blockStatements(node: SyntaxNode): readonly SyntaxNode[] | undefined {
  return node.type === 'Program' || node.type === 'BlockStatement' ? (node['body'] as SyntaxNode[]) : undefined;
}

function declaredHere(statements: readonly SyntaxNode[], name: string, owner: SyntaxNode): Declaration | undefined {
  for (const each of statements) {
    const statement = (each['declaration'] as SyntaxNode | null | undefined) ?? each;
    if (statement.type === 'ClassDeclaration' && statement['id']?.name === name) {
      return { node: statement, initialiser: null, owner };
    }
    if (statement.type !== 'VariableDeclaration' || statement['kind'] === 'var') continue;
    for (const declarator of statement['declarations'] as SyntaxNode[]) {
      let binds = false;
      boundNames(declarator['id'], (bound) => {
        binds ||= bound === name;
      });
      if (binds) return { node: declarator, initialiser: declarator['init'] as SyntaxNode | null, owner };
    }
  }
  return undefined;
}

/** Parameters, `var` and functions hide outer declarations; they are never uninitialised. */
function shadow(node: SyntaxNode, name: string, outer: Declaration | undefined): Declaration | undefined {
  let hidden = false;
  const hide = (bound: string): void => {
    hidden ||= bound === name;
  };
  if (isFunction(node)) {
    for (const parameter of node['params']) boundNames(parameter, hide);
    hoistedNames(node['body'], hide);
  } else {
    lexicalNames(node['body'], hide);
  }
  return hidden ? undefined : outer;
}

function innermostFunction(program: SyntaxNode, offset: number): SyntaxNode {
  let found = program;
  const visit = (node: SyntaxNode): void => {
    if (isFunction(node)) found = node;
    for (const child of childrenOf(node)) if (child.start <= offset && offset < child.end) visit(child);
  };
  visit(program);
  return found;
}

/** Where the script is being run now, by the call stack. */
function runningOffsets(script: Script): number[] {
  const { prepareStackTrace, stackTraceLimit } = Error;
  try {
    Error.stackTraceLimit = Number.POSITIVE_INFINITY;
    Error.prepareStackTrace = (_, frames) => frames;
    const frames = new Error().stack as unknown as NodeJS.CallSite[];
    return frames
      .filter((frame) => frame.getScriptNameOrSourceURL() === script.url || frame.getFileName() === script.url)
      .map((frame) =>
        script.offsetOf({
          scriptId: script.facts.id,
          line: (frame.getLineNumber() ?? 1) - 1,
          column: (frame.getColumnNumber() ?? 1) - 1,
        }),
      );
  } finally {
    Error.prepareStackTrace = prepareStackTrace;
    Error.stackTraceLimit = stackTraceLimit;
  }
}
