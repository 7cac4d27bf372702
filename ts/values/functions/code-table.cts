/** What functions of a message share: their code, strings, and the modules to import. */
import { Tag } from '../format.cjs';
import type { Writer } from '../writer.cjs';
import type { ImportedModule } from './packages.cjs';
import type { SyntaxNode } from './syntax.cjs';
import { Form } from './syntax.cjs';
import type { Template } from './templates.cjs';
import {
  CODE_CLASS,
  CODE_HOME,
  CODE_IMPORTS,
  CODE_META,
  CODE_OUTER_ARGUMENTS,
  CODE_STRICT,
  CODE_SUPERCLASS,
  VARIABLE_CELL,
  VARIABLE_EAGER,
} from './wire.cjs';

export class CodeTable {
  private readonly codes = new Map<Template, number>();
  private readonly strings = new Map<string, number>();
  private readonly modules = new Map<string, { readonly number: number; readonly module: ImportedModule }>();

  /** The number of a function's code. */
  code(template: Template): number {
    return numberIn(this.codes, template);
  }

  /** The number of a string that many records name. */
  string(text: string): number {
    return numberIn(this.strings, text);
  }

  /** The number of a module. */
  module(module: ImportedModule): number {
    const key = `${module.kind} ${module.specifier} ${module.version} ${module.directory}`;
    let found = this.modules.get(key);
    if (found === undefined) {
      found = { number: this.modules.size, module };
      this.modules.set(key, found);
    }
    return found.number;
  }

  /** Writes the modules; returns whether there are any. */
  writeModules(out: Writer): boolean {
    if (this.modules.size === 0) return false;
    out.varint(this.modules.size);
    for (const { module } of this.modules.values()) {
      out.byte(module.kind);
      out.string(module.specifier, Tag.Latin1);
      out.string(module.version, Tag.Latin1);
      out.string(module.directory, Tag.Latin1);
    }
    return true;
  }

  /** Writes strings and code. */
  writeCode(out: Writer): void {
    out.varint(this.strings.size);
    for (const text of this.strings.keys()) out.string(text, Tag.Latin1);
    out.varint(this.codes.size);
    for (const template of this.codes.keys()) writeTemplate(out, template);
  }
}

function numberIn<T>(numbers: Map<T, number>, key: T): number {
  let number = numbers.get(key);
  if (number === undefined) {
    number = numbers.size;
    numbers.set(key, number);
  }
  return number;
}

function writeTemplate(out: Writer, template: Template): void {
  const { analysis, script, names } = template;
  out.byte(
    (template.isStrict ? CODE_STRICT : 0) |
      (template.class === undefined ? 0 : CODE_CLASS) |
      (analysis.form !== Form.Expression && analysis.usesSuper ? CODE_HOME : 0) |
      (analysis.importMeta.length > 0 ? CODE_META : 0) |
      (analysis.dynamicImports.length > 0 ? CODE_IMPORTS : 0) |
      (analysis.outerArguments.length > 0 ? CODE_OUTER_ARGUMENTS : 0) |
      (template.class?.hasSuperclass === true ? CODE_SUPERCLASS : 0),
  );
  out.byte(analysis.form);
  out.string(memberKind(analysis.root), Tag.Latin1);
  out.string(memberKey(analysis.root), Tag.Latin1);
  out.string(names.prefix, Tag.Latin1);
  out.string(script.url, Tag.Latin1);
  out.varint(template.line);
  // Text inside a wrapper of ours may begin left of its line's first column.
  out.zigzag(template.column);
  out.varint(template.variables.length);
  for (const { name, isCell, isEager } of template.variables) {
    out.byte((isCell ? VARIABLE_CELL : 0) | (isEager ? VARIABLE_EAGER : 0));
    out.string(name, Tag.Latin1);
  }
  out.string(template.text, Tag.Latin1);
}

/** 'get' and 'set' are taken from their object otherwise than methods. */
function memberKind(root: SyntaxNode): string {
  return root.type === 'Property' || root.type === 'MethodDefinition' ? (root['kind'] as string) : '';
}

/** The key under which the wrapper finds a method; empty where the wrapper chooses it. */
function memberKey(root: SyntaxNode): string {
  if (root.type !== 'Property' && root.type !== 'MethodDefinition') return '';
  const key = root['key'] as SyntaxNode;
  if (root['computed']) return '';
  return key.type === 'Identifier' ? (key['name'] as string) : String(key['value']);
}
