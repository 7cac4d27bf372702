/**
 * Which functions are generator functions, also those that a compiler turned into others for older engines: whether a call
 * streams must be known before it is made.
 */

import { inspectInternals } from './values/functions/inspector.cjs';
import { parseFunction, type SyntaxNode } from './values/functions/syntax.cjs';
import { Refusal } from './values/refusal.cjs';

type AnyFunction = (...args: any[]) => unknown;

/** What makes a generator, by TypeScript and tslib, esbuild, swc, Babel. */
const MAKER = /^_*(ts_generator|generator|async_?generator|wrap_?async_?generator)\d*$/i;

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

/**
 * `function f() { return __generator(this, …) }`, `{ return wrap(function* …)() }`, or `{ return _f.apply(this, arguments) }`
 * where `_f` is the other function that Babel makes of an asynchronous generator.
 */
function isCompiled(value: AnyFunction): boolean {
  const text = Function.prototype.toString.call(value);
  const forwards = /\.apply\(this, ?arguments\)/.test(text);
  if (!forwards && !/generator/i.test(text)) return false;
  return statements(text).some(({ type, argument }) => {
    if (type !== 'ReturnStatement' || argument?.type !== 'CallExpression') return false;
    const callee = argument.callee as SyntaxNode;
    return (
      isMaker(callee.type === 'CallExpression' ? callee['callee'] : callee) || (forwards && isForwarded(value, callee))
    );
  });
}

/** The statements of a function's body, not those of functions inside. */
function statements(text: string): SyntaxNode[] {
  try {
    const { root } = parseFunction(text);
    const { body } = root.type === 'Property' || root.type === 'MethodDefinition' ? root['value'] : root;
    return body?.type === 'BlockStatement' ? body.body : [];
  } catch {
    return []; // native, or what cannot be sent anyway
  }
}

/** Whether this names what makes a generator: `f`, `module.f`, `(0, module.f)`, `_f2.default`, `_f._`. */
function isMaker(callee: SyntaxNode): boolean {
  if (callee.type === 'Identifier') return MAKER.test(callee['name']);
  if (callee.type === 'SequenceExpression') return isMaker(callee['expressions'].at(-1));
  if (callee.type !== 'MemberExpression' || callee['computed']) return false;
  const isDefault = ['default', '_'].includes(callee['property'].name);
  return isMaker(isDefault ? callee['object'] : callee['property']);
}

/** Whether `callee` is `name.apply` of a variable around the function that makes asynchronous generators. */
function isForwarded(value: AnyFunction, callee: SyntaxNode): boolean {
  if (callee.type !== 'MemberExpression' || callee['object'].type !== 'Identifier') return false;
  const held = variableOf(value, callee['object'].name as string);
  if (typeof held !== 'function') return false;
  // Before its first call it puts the wrapped function in its own place.
  return statements(Function.prototype.toString.call(held)).some(({ type, expression, argument }) => {
    if (type === 'ReturnStatement') return argument?.type === 'NewExpression' && isMaker(argument.callee);
    const assigned = type === 'ExpressionStatement' && expression.type === 'AssignmentExpression' && expression.right;
    return assigned && assigned.type === 'CallExpression' && isMaker(assigned.callee);
  });
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
