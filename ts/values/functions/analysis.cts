/** The free variables of a function, and the constructs that need rewriting or cannot be sent. */
import type { FunctionSyntax, SyntaxNode } from './syntax.cjs';
import { boundNames, childrenOf, Form, hoistedNames, lexicalNames, parseFunction } from './syntax.cjs';

/** A place that names a variable from outside the function. Positions are those of the text. */
export interface Reference {
  readonly name: string;
  readonly start: number;
  readonly end: number;
  /** `{ name }`: replacing it must keep the key. */
  readonly shorthand: boolean;
  readonly written: boolean;
  /** Called as a plain function: what replaces it must not become a method call. */
  readonly called: boolean;
  /** Evaluated while the class itself is made. */
  readonly eager: boolean;
  /** The property that is read here, if it is nothing else. */
  readonly member: string | undefined;
}

/** What vite and vitest make of `import.meta` and `import()`. */
const VITE_META = /^__vi(te_ssr)?_import_meta__$/;
const VITE_DYNAMIC = /^__vi(te_ssr)?_dynamic_import__$/;

/** A place in the text. */
export interface Range {
  readonly start: number;
  readonly end: number;
}

/** What a function's text says. */
export interface Analysis extends FunctionSyntax {
  readonly references: readonly Reference[];
  readonly usesThis: boolean;
  readonly usesSuper: boolean;
  readonly usesNewTarget: boolean;
  readonly usesEval: boolean;
  readonly usesPrivateNames: boolean;
  readonly outerArguments: readonly Range[];
  readonly importMeta: readonly Range[];
  readonly dynamicImports: readonly (Range & { readonly specifier: unknown })[];
}

/** Analyses the text of a function. */
export function analyse(text: string): Analysis {
  const syntax = parseFunction(text);
  const own = syntax.form === Form.Expression ? (syntax.root['id']?.name as string | undefined) : undefined;
  // Only a declaration can put something else in its own place, as Babel's helpers do: its name is a variable around it.
  if (own !== undefined && syntax.text.replaceAll(/\s/g, '').includes(`${own}=`)) {
    const analysis = new Analyser(syntax, true).run();
    if (analysis.references.some(({ name, written }) => written && name === own)) return analysis;
  }
  return new Analyser(syntax, false).run();
}

class Names {
  readonly up: Names | undefined;
  private readonly own = new Set<string>();
  readonly add = (name: string): void => {
    this.own.add(name);
  };

  constructor(up: Names | undefined) {
    this.up = up;
  }

  has(name: string): boolean {
    for (let at: Names | undefined = this; at !== undefined; at = at.up) if (at.own.has(name)) return true;
    return false;
  }
}

class Analyser {
  private readonly syntax: FunctionSyntax;
  private readonly references: Reference[] = [];
  private readonly outerArguments: Range[] = [];
  private readonly importMeta: Range[] = [];
  private readonly dynamicImports: (Range & { specifier: unknown })[] = [];
  private usesThis = false;
  private usesSuper = false;
  private usesNewTarget = false;
  private usesEval = false;
  private usesPrivateNames = false;
  /** Whether `this`, `super` and `arguments` here belong to a function inside the text. */
  private ownsThis = false;
  /** Whether `super` here is that of the method which the text is. */
  private inRootMethod = false;
  private eager = false;

  /** Whether the name of the function itself is looked up around it. */
  private readonly replacesItself: boolean;

  constructor(syntax: FunctionSyntax, replacesItself: boolean) {
    this.syntax = syntax;
    this.replacesItself = replacesItself;
  }

  run(): Analysis {
    const { root, form } = this.syntax;
    const names = new Names(undefined);
    if (form === Form.Expression) {
      this.visit(root, names);
    } else {
      this.inRootMethod = true;
      this.visitFunction(root['value'], names, true);
    }
    const { references, outerArguments, importMeta, dynamicImports } = this;
    const { usesThis, usesSuper, usesNewTarget, usesEval, usesPrivateNames } = this;
    return {
      ...this.syntax,
      references,
      outerArguments,
      importMeta,
      dynamicImports,
      usesThis,
      usesSuper,
      usesNewTarget,
      usesEval,
      usesPrivateNames,
    };
  }

  private range(node: SyntaxNode): Range {
    return { start: node.start - this.syntax.offset, end: node.end - this.syntax.offset };
  }

  private refer(node: SyntaxNode, names: Names, how: Partial<Reference> = {}): void {
    const name = node['name'] as string;
    if (names.has(name)) return;
    if (name === 'arguments') {
      if (!this.ownsThis) this.outerArguments.push(this.range(node));
      return;
    }
    if (VITE_META.test(name)) {
      this.importMeta.push(this.range(node));
      return;
    }
    this.references.push({
      name,
      ...this.range(node),
      shorthand: false,
      written: false,
      called: false,
      eager: this.eager,
      member: undefined,
      ...how,
    });
  }

  /** The target of an assignment. */
  private assign(node: SyntaxNode, names: Names): void {
    switch (node.type) {
      case 'Identifier':
        this.refer(node, names, { written: true });
        break;
      case 'ObjectPattern':
        for (const property of node['properties']) {
          if (property.type === 'RestElement') {
            this.assign(property.argument, names);
            continue;
          }
          if (property.computed) this.visit(property.key, names);
          if (!property.shorthand) {
            this.assign(property.value, names);
            continue;
          }
          const defaulted = property.value.type === 'AssignmentPattern';
          this.refer(defaulted ? property.value.left : property.value, names, { written: true, shorthand: true });
          if (defaulted) this.visit(property.value.right, names);
        }
        break;
      case 'ArrayPattern':
        for (const element of node['elements']) if (element !== null) this.assign(element, names);
        break;
      case 'AssignmentPattern':
        this.assign(node['left'], names);
        this.visit(node['right'], names);
        break;
      case 'RestElement':
        this.assign(node['argument'], names);
        break;
      case 'MemberExpression':
        this.visitChanged(node, names);
        break;
      default:
        this.visit(node, names);
    }
  }

  /** A property that is assigned or deleted: the object itself counts, not what it holds. */
  private visitChanged(node: SyntaxNode, names: Names): void {
    this.visit(node['object'], names);
    if (node['computed'] || node['property'].type === 'PrivateIdentifier') this.visit(node['property'], names);
  }

  /** Default values and computed keys inside a pattern that declares. */
  private declare(pattern: SyntaxNode | null, names: Names): void {
    switch (pattern?.type) {
      case 'ObjectPattern':
        for (const property of pattern['properties']) {
          if (property.computed) this.visit(property.key, names);
          this.declare(property.type === 'RestElement' ? property.argument : property.value, names);
        }
        break;
      case 'ArrayPattern':
        for (const element of pattern['elements']) this.declare(element, names);
        break;
      case 'AssignmentPattern':
        this.declare(pattern['left'], names);
        this.visit(pattern['right'], names);
        break;
      case 'RestElement':
        this.declare(pattern['argument'], names);
        break;
    }
  }

  private visitFunction(node: SyntaxNode, outer: Names, isRoot = false): void {
    let names = outer;
    const isReplaced = this.replacesItself && node === this.syntax.root;
    if (node.type === 'FunctionExpression' && node['id'] && !isReplaced) {
      names = new Names(names);
      names.add(node['id'].name);
    }
    names = new Names(names);
    for (const parameter of node['params']) boundNames(parameter, names.add);
    const { ownsThis, eager, inRootMethod } = this;
    if (node.type !== 'ArrowFunctionExpression') {
      this.ownsThis = true;
      if (!isRoot) this.inRootMethod = false;
    }
    this.eager = false;
    const body = node['body'] as SyntaxNode;
    const isBlock = body.type === 'BlockStatement';
    if (isBlock) {
      hoistedNames(body, names.add);
      lexicalNames(body['body'], names.add);
    }
    for (const parameter of node['params']) this.declare(parameter, names);
    if (isBlock) for (const statement of body['body']) this.visit(statement, names);
    else this.visit(body, names);
    this.ownsThis = ownsThis;
    this.eager = eager;
    this.inRootMethod = inRootMethod;
  }

  private visitClass(node: SyntaxNode, outer: Names): void {
    const isRoot = node === this.syntax.root;
    // The superclass of the class that is sent goes as a value.
    if (node['superClass'] && !isRoot) this.visit(node['superClass'], outer);
    const names = new Names(outer);
    if (node['id']) names.add(node['id'].name);
    for (const member of node['body'].body as SyntaxNode[]) {
      const isStatic = member.type === 'StaticBlock' || (member.type === 'PropertyDefinition' && member['static']);
      // What statics have become goes as values: they do not run again.
      if (isRoot && isStatic) continue;
      const { ownsThis, eager, inRootMethod } = this;
      if (member['computed']) {
        this.eager = true;
        this.visit(member['key'], names);
        this.eager = eager;
      }
      this.ownsThis = true;
      this.inRootMethod = false;
      if (member.type === 'StaticBlock') {
        const block = new Names(names);
        for (const statement of member['body']) hoistedNames(statement, block.add);
        lexicalNames(member['body'], block.add);
        for (const statement of member['body']) this.visit(statement, block);
      } else if (member['value']) {
        this.eager = false;
        this.visit(member['value'], names);
      }
      this.ownsThis = ownsThis;
      this.eager = eager;
      this.inRootMethod = inRootMethod;
    }
  }

  private visitLoop(node: SyntaxNode, outer: Names): void {
    const names = new Names(outer);
    const head = (node['init'] ?? node['left']) as SyntaxNode | null | undefined;
    if (head?.type === 'VariableDeclaration') {
      if (head['kind'] !== 'var') for (const each of head['declarations']) boundNames(each.id, names.add);
      this.visit(head, names);
    } else if (head) {
      if (node.type === 'ForStatement') this.visit(head, names);
      else this.assign(head, names);
    }
    for (const part of ['test', 'update', 'right', 'body']) if (node[part]) this.visit(node[part], names);
  }

  private visitBlock(statements: readonly SyntaxNode[], outer: Names): void {
    const names = new Names(outer);
    lexicalNames(statements, names.add);
    for (const statement of statements) this.visit(statement, names);
  }

  private visitCallee(callee: SyntaxNode, names: Names): void {
    if (callee.type !== 'Identifier') {
      this.visit(callee, names);
      return;
    }
    if (callee['name'] === 'eval' && !names.has('eval')) this.usesEval = true;
    this.refer(callee, names, { called: true });
  }

  private visitChildren(node: SyntaxNode, names: Names): void {
    for (const child of childrenOf(node)) this.visit(child, names);
  }

  private visit(node: SyntaxNode, names: Names): void {
    switch (node.type) {
      case 'Identifier':
        this.refer(node, names);
        return;
      case 'PrivateIdentifier':
        this.usesPrivateNames = true;
        return;
      case 'ThisExpression':
        if (!this.ownsThis) this.usesThis = true;
        return;
      case 'Super':
        if (!this.ownsThis || this.inRootMethod) this.usesSuper = true;
        return;
      case 'MetaProperty':
        if (node['meta'].name === 'import') this.importMeta.push(this.range(node));
        else if (!this.ownsThis) this.usesNewTarget = true;
        return;
      case 'ImportExpression': {
        const { start } = this.range(node);
        const specifier: unknown = node['source'].type === 'Literal' ? node['source'].value : undefined;
        this.dynamicImports.push({ start, end: start + 'import'.length, specifier });
        this.visitChildren(node, names);
        return;
      }
      case 'FunctionExpression':
      case 'ArrowFunctionExpression':
      case 'FunctionDeclaration':
        this.visitFunction(node, names);
        return;
      case 'ClassExpression':
      case 'ClassDeclaration':
        this.visitClass(node, names);
        return;
      case 'MemberExpression':
        if (node['object'].type === 'Identifier' && !node['computed'] && node['property'].type === 'Identifier') {
          this.refer(node['object'], names, { member: node['property'].name });
          return;
        }
        this.visit(node['object'], names);
        if (node['computed'] || node['property'].type === 'PrivateIdentifier') this.visit(node['property'], names);
        return;
      case 'Property':
        if (node['computed']) this.visit(node['key'], names);
        if (node['shorthand'] && node['value'].type === 'Identifier') {
          this.refer(node['value'], names, { shorthand: true });
        } else {
          this.visit(node['value'], names);
        }
        return;
      case 'AssignmentExpression':
        if (node['left'].type === 'Identifier') this.refer(node['left'], names, { written: true });
        else this.assign(node['left'], names);
        this.visit(node['right'], names);
        return;
      case 'UpdateExpression':
        this.assign(node['argument'], names);
        return;
      case 'UnaryExpression':
        if (node['operator'] === 'delete') this.assign(node['argument'], names);
        else this.visit(node['argument'], names);
        return;
      case 'VariableDeclaration':
        for (const declarator of node['declarations']) {
          this.declare(declarator.id, names);
          if (declarator.init) this.visit(declarator.init, names);
        }
        return;
      case 'BlockStatement':
        this.visitBlock(node['body'], names);
        return;
      case 'SwitchStatement': {
        this.visit(node['discriminant'], names);
        const inner = new Names(names);
        for (const each of node['cases']) lexicalNames(each.consequent, inner.add);
        for (const each of node['cases']) this.visitChildren(each, inner);
        return;
      }
      case 'ForStatement':
      case 'ForInStatement':
      case 'ForOfStatement':
        this.visitLoop(node, names);
        return;
      case 'CatchClause': {
        const inner = new Names(names);
        boundNames(node['param'], inner.add);
        this.declare(node['param'], inner);
        this.visit(node['body'], inner);
        return;
      }
      case 'LabeledStatement':
        this.visit(node['body'], names);
        return;
      case 'BreakStatement':
      case 'ContinueStatement':
        return;
      case 'CallExpression':
        if (VITE_DYNAMIC.test(String(node['callee'].name)) && !names.has(node['callee'].name)) {
          const [source] = node['arguments'] as SyntaxNode[];
          const specifier: unknown = source?.type === 'Literal' ? source['value'] : undefined;
          this.dynamicImports.push({ ...this.range(node['callee']), specifier });
        } else {
          this.visitCallee(node['callee'], names);
        }
        for (const argument of node['arguments']) this.visit(argument, names);
        return;
      case 'TaggedTemplateExpression':
        this.visitCallee(node['tag'], names);
        this.visit(node['quasi'], names);
        return;
      default:
        this.visitChildren(node, names);
    }
  }
}
