/** Whether objects with a prototype may leave the process, and which private names they own. */
import { EventEmitter } from 'node:events';
import { standardKind } from '../kinds.cjs';
import { Refusal } from '../refusal.cjs';
import { isNative } from './builtins.cjs';
import type { FunctionWriter } from './function-writer.cjs';
import type { SyntaxNode } from './syntax.cjs';

/** The private names of a chain of classes by value. */
export interface PrivateParts {
  /** The class through which an instance is made: the first of the chain that has private names. */
  readonly maker: CallableFunction;
  /** The class that declares each private field. */
  readonly owners: ReadonlyMap<string, CallableFunction>;
}

/** Walks a prototype chain. Throws for what lives in this process; undefined when nothing private is there. */
export function checkPrototype(
  { capture, named }: FunctionWriter,
  value: object,
  prototype: object,
): PrivateParts | undefined {
  let maker: CallableFunction | undefined;
  const owners = new Map<string, CallableFunction>();
  for (let at: object | null = prototype; at !== null; at = Object.getPrototypeOf(at) as object | null) {
    if (standardKind(at) !== undefined) break;
    const type: unknown = Object.getOwnPropertyDescriptor(at, 'constructor')?.value;
    if (typeof type !== 'function' || type.prototype !== at || type === EventEmitter) continue;
    const found = named.find(type);
    if (found?.how === 'self') {
      throw new Refusal(`is a ${found.name}, which belongs to its process`, 'Make another one where it is needed');
    }
    const template = found?.how === 'builtin' ? undefined : capture.templateOf(type);
    if (template === undefined) throw localInstance(value, type, found?.how === 'builtin' ? found.path[0] : undefined);
    if (template.class?.hasPrivateNames !== true) continue;
    if (found !== undefined) {
      throw new Refusal(
        `is a ${type.name} with private fields, whose class is imported by name`,
        `Tell how it travels: registerSerializer(${type.name}, …)`,
      );
    }
    maker ??= type;
    for (const member of template.analysis.root['body'].body as SyntaxNode[]) {
      if (member['static'] || member.type !== 'PropertyDefinition' || member['key'].type !== 'PrivateIdentifier')
        continue;
      const name = `#${member['key'].name as string}`;
      if (owners.has(name)) {
        throw new Refusal(
          `has two private fields ${name}, of ${type.name} and of a class that extends it`,
          'Rename one',
        );
      }
      owners.set(name, type);
    }
  }
  return maker && { maker, owners };
}

function localInstance(value: object, type: CallableFunction, origin: string | undefined): Refusal {
  const name = (value.constructor as { name?: string } | undefined)?.name ?? 'object';
  const hint = 'Open it inside the function, or keep it in an actor';
  if (origin?.startsWith('node:') === true) {
    return new Refusal(`is a ${name}, which lives in this process (a class of ${origin})`, hint);
  }
  return new Refusal(
    isNative(type)
      ? `is a ${name}, an object of native code that lives in this process`
      : `is a ${name}, which lives in this process (a class inside Node)`,
    hint,
  );
}
