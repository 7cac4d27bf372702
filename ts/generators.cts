/** Which functions are generator functions, also those that a compiler turned into others for older engines. */

import { inspectInternals } from './values/functions/inspector.cjs';
import { parseFunction, type SyntaxNode } from './values/functions/syntax.cjs';
import { Refusal } from './values/refusal.cjs';

type AnyFunction = (...args: any[]) => unknown;

/** What compilers call to make a generator, and return: TypeScript and tslib, esbuild, swc. */
const MAKERS = new Set(['__generator', '__asyncGenerator', '_ts_generator']);
/** The text of what Babel and swc put around an asynchronous generator, before and after its first call. */
const WRAPPER = /wrap_?async_?generator|new \w*Async_?Generator\(/i;

const known = new WeakMap<AnyFunction, boolean>();

/** Whether calling this function gives a generator, as far as that can be known before. */
export function isGenerator(value: AnyFunction): boolean {
  // Regenerator's runtime, which Babel uses, gives its functions this tag as well.
  const tag = Object.prototype.toString.call(value);
  if (tag === '[object GeneratorFunction]' || tag === '[object AsyncGeneratorFunction]') return true;
  let found = known.get(value);
  if (found === undefined) {
    found = isCompiled(value);
    known.set(value, found);
  }
  return found;
}

function isCompiled(value: AnyFunction): boolean {
  const text = Function.prototype.toString.call(value);
  const returnsMaker = /generator/i.test(text);
  const forwards = /\.apply\(this, ?arguments\)/.test(text);
  if (!returnsMaker && !forwards) return false;
  for (const call of returnedCalls(text)) {
    if (MAKERS.has(nameOf(call['callee']) ?? '')) return true;
    if (forwards && isWrapped(value, call['callee'])) return true;
  }
  return false;
}

/** The calls that the function itself returns, not those of functions inside. */
function returnedCalls(text: string): SyntaxNode[] {
  let root: SyntaxNode;
  try {
    root = parseFunction(text).root;
  } catch {
    return []; // native, or what cannot be sent anyway
  }
  const { body } = (root.type === 'Property' || root.type === 'MethodDefinition' ? root['value'] : root) as SyntaxNode;
  if (body?.type !== 'BlockStatement') return [];
  const returned = (body['body'] as SyntaxNode[]).filter(({ type }) => type === 'ReturnStatement');
  return returned
    .map((each) => each['argument'] as SyntaxNode | null)
    .filter((each) => each?.type === 'CallExpression') as SyntaxNode[];
}

/** The last name of what is called: `f`, `module.f`, `(0, module.f)`. */
function nameOf(callee: SyntaxNode): string | undefined {
  if (callee.type === 'Identifier') return callee['name'] as string;
  if (callee.type === 'MemberExpression')
    return callee['computed'] ? undefined : nameOf(callee['property'] as SyntaxNode);
  if (callee.type === 'SequenceExpression') return nameOf((callee['expressions'] as SyntaxNode[]).at(-1) as SyntaxNode);
  return undefined;
}

/** Whether `callee` is `name.apply` of a variable around the function that holds a wrapped asynchronous generator. */
function isWrapped(value: AnyFunction, callee: SyntaxNode): boolean {
  if (callee.type !== 'MemberExpression' || nameOf(callee) !== 'apply') return false;
  const name = nameOf(callee['object'] as SyntaxNode);
  if (name === undefined || callee['object'].type !== 'Identifier') return false;
  const held = variableOf(value, name);
  return typeof held === 'function' && WRAPPER.test(Function.prototype.toString.call(held));
}

function variableOf(value: AnyFunction, name: string): unknown {
  try {
    return inspectInternals(value).scopes.find(({ variables }) => name in variables)?.variables[name];
  } catch (error) {
    // Where the inspector is denied, sending the function is refused with more about it.
    if (error instanceof Refusal) return undefined;
    throw error;
  }
}
