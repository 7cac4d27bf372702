/**
 * From a function's text to text that can be compiled away from its surroundings. Edits keep every line where it was,
 * so that stack traces show the user's lines.
 */
import type { Analysis } from './analysis.cjs';
import type { SyntaxNode } from './syntax.cjs';
import { Form } from './syntax.cjs';

/** How the text around a revived function begins. */
export const WRAPPER_HEAD = '(function($$';
/** Marks where the setters of a wrapper's variables begin. */
export const WRAPPER_TAIL = '\n/*variables*/';

/** Names that the wrapper binds for the text. `prefix` is one that the text does not use. */
export interface WrapperNames {
  readonly prefix: string;
  readonly cell: (variable: string) => string;
  readonly superclass: string;
  readonly guard: string;
  readonly privates: string;
  readonly meta: string;
  readonly importer: string;
  readonly outerArguments: string;
  readonly key: string;
  readonly home: string;
}

/** The names for texts that use this prefix. */
export function wrapperNames(prefix: string): WrapperNames {
  return {
    prefix,
    cell: (variable) => `${prefix}v_${variable}`,
    superclass: `${prefix}super`,
    guard: `${prefix}guard`,
    privates: `${prefix}private`,
    meta: `${prefix}meta`,
    importer: `${prefix}import`,
    outerArguments: `${prefix}arguments`,
    key: `${prefix}key`,
    home: `${prefix}home`,
  };
}

/** A prefix that occurs nowhere in the text. */
export function freePrefix(text: string): string {
  let prefix = '$$';
  while (text.includes(prefix)) prefix += '$';
  return prefix;
}

interface Edit {
  readonly start: number;
  readonly end: number;
  readonly text: string;
}

/** A class's parts that its text alone does not bring back. */
export interface ClassParts {
  /** Whether instances own private names. */
  readonly hasPrivateNames: boolean;
  /** Whether what it extends goes as a value. */
  readonly hasSuperclass: boolean;
  /** Whether rewriting changed the number of the constructor's parameters. */
  readonly lengthChanged: boolean;
}

/** The text with all edits, given which variables are cells. */
export function rewrite(analysis: Analysis, cells: ReadonlySet<string>, names: WrapperNames): string {
  const edits: Edit[] = [];
  for (const { name, start, end, shorthand, called } of analysis.references) {
    if (!cells.has(name)) continue;
    const cell = names.cell(name);
    // A call through a property would pass the cell as `this`.
    const access = called ? `${cell}.get()` : `${cell}.v`;
    edits.push({ start, end, text: shorthand ? `${name}:${access}` : access });
  }
  for (const range of analysis.outerArguments) edits.push({ ...range, text: names.outerArguments });
  for (const range of analysis.importMeta) edits.push({ ...range, text: names.meta });
  for (const { start, end } of analysis.dynamicImports) edits.push({ start, end, text: names.importer });
  const { root, form } = analysis;
  if (root.type === 'ClassExpression') new ClassRewriter(analysis, edits, names).run();
  if (form !== Form.Expression && root['computed']) {
    const { key } = root as unknown as { key: SyntaxNode };
    edits.push({ start: key.start - analysis.offset, end: key.end - analysis.offset, text: names.key });
  }
  return apply(analysis.text, edits);
}

function apply(text: string, edits: Edit[]): string {
  edits.sort((a, b) => a.start - b.start || a.end - b.end);
  let result = '';
  let at = 0;
  for (const { start, end, text: replacement } of edits) {
    // What lies inside a stretch that is blanked goes with it.
    if (start < at) continue;
    result += text.slice(at, start) + replacement;
    at = end;
  }
  return result + text.slice(at);
}

/** What rewriting means for a class. */
export function classParts(root: SyntaxNode): ClassParts {
  const members = root['body'].body as SyntaxNode[];
  const maker = members.find((member) => member['kind'] === 'constructor');
  const parameters = (maker?.['value'].params ?? []) as SyntaxNode[];
  return {
    hasPrivateNames: members.some((member) => !member['static'] && member['key']?.type === 'PrivateIdentifier'),
    hasSuperclass: hasSuperclass(root),
    lengthChanged: parameters.some(({ type }) => type === 'ObjectPattern' || type === 'ArrayPattern'),
  };
}

/** `extends null` stays text. */
function hasSuperclass(root: SyntaxNode): boolean {
  return root['superClass'] !== null && root['superClass'].type !== 'Literal';
}

/** Evaluating such an initialiser has no effect, and a function needs its place to get its name. */
function isInert(node: SyntaxNode): boolean {
  return node.type === 'Literal' || node.type === 'FunctionExpression' || node.type === 'ArrowFunctionExpression';
}

/**
 * Statics do not run again; private fields can be set from outside; and while the guard is on, constructing makes an
 * object that owns its private names and does nothing else.
 */
class ClassRewriter {
  private readonly analysis: Analysis;
  private readonly edits: Edit[];
  private readonly names: WrapperNames;
  private readonly instanceFields: string[] = [];
  private readonly staticFields: string[] = [];

  constructor(analysis: Analysis, edits: Edit[], names: WrapperNames) {
    this.analysis = analysis;
    this.edits = edits;
    this.names = names;
  }

  run(): void {
    const { root } = this.analysis;
    const superclass = root['superClass'] as SyntaxNode | null;
    if (superclass !== null && hasSuperclass(root)) this.replace(superclass, this.names.superclass);
    for (const member of root['body'].body as SyntaxNode[]) {
      if (member.type === 'StaticBlock') this.blank(member.start, member.end);
      else if (member.type === 'PropertyDefinition') this.field(member);
      else if (member['kind'] === 'constructor') this.guardConstructor(member['value'], superclass !== null);
    }
    if (this.instanceFields.length + this.staticFields.length === 0) return;
    const end = (root['body'] as SyntaxNode).end - 1;
    this.insert(end, `;static{${this.names.privates}((o,k,v)=>{switch(k){${this.cases('o', this.instanceFields)}}},`);
    this.insert(end, `(k,v)=>{switch(k){${this.cases('this', this.staticFields)}}})}`);
  }

  private cases(target: string, fields: readonly string[]): string {
    return fields.map((name) => `case"${name}":${target}.${name}=v;break;`).join('');
  }

  private field(member: SyntaxNode): void {
    const key = member['key'] as SyntaxNode;
    const isPrivate = key.type === 'PrivateIdentifier';
    const value = member['value'] as SyntaxNode | null;
    if (isPrivate) (member['static'] ? this.staticFields : this.instanceFields).push(`#${key['name'] as string}`);
    if (member['static']) {
      if (!isPrivate) this.blank(member.start, member.end);
      else if (value !== null) this.blank(key.end, value.end);
    } else if (value !== null && !isInert(value)) {
      this.wrap(value, `${this.names.guard}.on?void 0:(`);
    }
  }

  private guardConstructor(method: SyntaxNode, isDerived: boolean): void {
    const { guard } = this.names;
    for (const parameter of method['params'] as SyntaxNode[]) {
      if (parameter.type === 'AssignmentPattern') {
        const right = parameter['right'] as SyntaxNode;
        if (parameter['left'].type !== 'Identifier') this.wrap(right, `${guard}.on?${guard}.any:(`);
        else if (!isInert(right)) this.wrap(right, `${guard}.on?void 0:(`);
      } else if (parameter.type === 'ObjectPattern' || parameter.type === 'ArrayPattern') {
        // A pattern fails when nothing is passed.
        this.insert(parameter.end, `=${guard}.on?${guard}.any:void 0`);
      }
    }
    const leave = isDerived ? `if(${guard}.on){super();return;}` : `if(${guard}.on)return;`;
    this.insert((method['body'] as SyntaxNode).start + 1, leave);
  }

  private wrap(node: SyntaxNode, before: string): void {
    this.insert(node.start, before);
    this.insert(node.end, ')');
  }

  private replace(range: { start: number; end: number }, text: string): void {
    const { offset } = this.analysis;
    this.edits.push({ start: range.start - offset, end: range.end - offset, text });
  }

  private insert(position: number, text: string): void {
    const at = position - this.analysis.offset;
    this.edits.push({ start: at, end: at, text });
  }

  private blank(start: number, end: number): void {
    const { text, offset } = this.analysis;
    this.replace({ start, end }, text.slice(start - offset, end - offset).replace(/[^\n]/g, ' '));
  }
}
