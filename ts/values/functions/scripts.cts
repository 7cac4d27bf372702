/** Scripts: their text, what they import, and which of their variables anything assigns. */

import { hash } from 'node:crypto';
import type { ImportDeclaration } from 'acorn';
import { parse } from 'acorn';
import { initSync, parse as lex } from 'es-module-lexer';
import type { Location, ScriptFacts } from './inspector.cjs';
import { scriptByUrl, scriptFacts, scriptSource } from './inspector.cjs';
import { WRAPPER_HEAD, WRAPPER_TAIL } from './rewriting.cjs';

/** Where an imported name comes from. `name` is '*' for a namespace. */
export interface ImportedName {
  readonly specifier: string;
  readonly name: string;
}

/** A loaded script. */
export class Script {
  readonly facts: ScriptFacts;
  readonly source: string;
  private imports: Map<string, ImportedName> | undefined;
  private exports: Map<string, string> | undefined;
  private identity: string | undefined;
  private readonly assigned = new Map<string, boolean>();

  constructor(facts: ScriptFacts) {
    this.facts = facts;
    this.source = scriptSource(facts.id);
  }

  get url(): string {
    return this.facts.url;
  }

  /** The same for every process that loads this text from this place. */
  get key(): string {
    this.identity ??= hash('sha1', `${this.url}\n${this.facts.hash}`, 'hex');
    return this.identity;
  }

  /** Where a position of the debugger lies in the text. */
  offsetOf(location: Location): number {
    let line = location.line - this.facts.startLine;
    const column = line === 0 ? location.column - this.facts.startColumn : location.column;
    let start = 0;
    while (line-- > 0) start = this.source.indexOf('\n', start) + 1;
    return start + column;
  }

  /** The import that declares a variable of a module. */
  importOf(variable: string): ImportedName | undefined {
    if (!this.facts.isModule) return undefined;
    if (this.imports === undefined) this.readImports();
    return this.imports?.get(variable);
  }

  /** The variable behind an export of a module. */
  localOf(exported: string): string | undefined {
    if (!this.facts.isModule) return undefined;
    if (this.exports === undefined) this.readImports();
    return this.exports?.get(exported);
  }

  /** The exports that show a variable. */
  exportsOf(variable: string): string[] {
    if (!this.facts.isModule) return [];
    if (this.exports === undefined) this.readImports();
    return [...(this.exports ?? [])].filter(([, local]) => local === variable).map(([exported]) => exported);
  }

  private readImports(): void {
    this.imports = new Map();
    this.exports = new Map();
    initSync();
    const [imports, exports] = lex(this.source);
    for (const { n: specifier, d: dynamic, ss: start, se: end } of imports) {
      if (specifier === undefined || dynamic !== -1) continue;
      const statement = this.source.slice(start, end);
      if (!statement.startsWith('import')) continue;
      const { body } = parse(statement, { ecmaVersion: 'latest', sourceType: 'module' });
      for (const binding of (body[0] as ImportDeclaration).specifiers) {
        let name = '*';
        if (binding.type === 'ImportDefaultSpecifier') name = 'default';
        else if (binding.type === 'ImportSpecifier') {
          name = binding.imported.type === 'Identifier' ? binding.imported.name : String(binding.imported.value);
        }
        this.imports.set(binding.local.name, { specifier, name });
      }
    }
    for (const { n: exported, ln: local } of exports) if (local !== undefined) this.exports.set(exported, local);
    const defaulted = /\bexport\s+default\s+([\p{ID_Start}$_][\p{ID_Continue}$]*)\s*(;|$)/mu.exec(this.source);
    if (defaulted !== null && !this.exports.has('default')) this.exports.set('default', defaulted[1] as string);
  }

  /** Whether anything in the text may assign a variable after its declaration. Errs towards yes. */
  mayAssign(variable: string): boolean {
    let answer = this.assigned.get(variable);
    if (answer === undefined) {
      // The wrapper of a revived function sets variables once, when it is revived.
      const tail = this.source.startsWith(WRAPPER_HEAD) ? this.source.lastIndexOf(WRAPPER_TAIL) : -1;
      answer = mayAssign(tail < 0 ? this.source : this.source.slice(0, tail), variable);
      this.assigned.set(variable, answer);
    }
    return answer;
  }
}

/** Compiles the lexer of module syntax. */
export function prepareLexer(): void {
  initSync();
}

const loaded = new Map<string, Script>();
/** Programs that make scripts without end (templates, hot reload) must not fill memory with their texts. */
const MOST_SCRIPTS = 2000;

/** The script with an id. */
export function scriptById(id: string): Script {
  let script = loaded.get(id);
  if (script === undefined) {
    script = new Script(scriptFacts(id));
    if (loaded.size >= MOST_SCRIPTS) loaded.clear();
    loaded.set(id, script);
  }
  return script;
}

/** The script with a URL whose functions were captured; of several, that which was read last. */
export function capturedScript(url: string): Script | undefined {
  let found: Script | undefined;
  for (const script of loaded.values()) if (script.url === url) found = script;
  return found;
}

/** What a specifier may stand for on disk: compilers and loaders of TypeScript let it name the output. */
const SPELLINGS: readonly (readonly [written: RegExp, found: readonly string[]])[] = [
  [/\.js$/, ['.ts', '.tsx', '.jsx']],
  [/\.mjs$/, ['.mts']],
  [/\.cjs$/, ['.cts']],
  [/$/, ['.ts', '.tsx', '.mts', '.js', '.mjs', '/index.ts', '/index.js']],
];

/** The module that a relative specifier names, if it is loaded. */
function importedScript(specifier: string, from: Script): Script | undefined {
  if (!/^\.{0,2}\//.test(specifier)) return undefined;
  let url: string;
  try {
    url = new URL(specifier, from.url).href;
  } catch {
    return undefined;
  }
  const spellings = SPELLINGS.flatMap(([written, found]) =>
    written.test(url) ? found.map((each) => url.replace(written, each)) : [],
  );
  for (const spelling of [url, ...spellings]) {
    const facts = scriptByUrl(spelling);
    if (facts?.isModule === true) return scriptById(facts.id);
  }
  return undefined;
}

/** A variable of a module, where it is declared. */
export interface ModuleVariable {
  readonly script: Script;
  readonly name: string;
}

/** Follows an import of the user's own to the module that declares the variable. */
export function declaringVariable(script: Script, name: string): ModuleVariable {
  const found = script.importOf(name);
  if (found === undefined || found.name === '*') return { script, name };
  const target = importedScript(found.specifier, script);
  const local = target?.localOf(found.name);
  return target === undefined || local === undefined ? { script, name } : declaringVariable(target, local);
}

const IDENTIFIER_PART = /[\p{ID_Continue}$\u200c\u200d]/u;
const ASSIGNS = /^(=(?![=>])|\+\+|--|(\+|-|\*{1,2}|\/|%|<<|>>>?|&{1,2}|\|{1,2}|\^|\?\?)=)/;
const SPACE = /^(\s|\/\/[^\n]*\n|\/\*[\s\S]*?\*\/)+/;
const DECLARES = /\b(const|let|var)\s*$/;
/** How far a pattern may reach beyond the variable in it. */
const PATTERN_LENGTH = 600;

function mayAssign(source: string, name: string): boolean {
  for (let at = source.indexOf(name); at >= 0; at = source.indexOf(name, at + name.length)) {
    const end = at + name.length;
    if (at > 0 && IDENTIFIER_PART.test(source[at - 1] as string)) continue;
    if (end < source.length && IDENTIFIER_PART.test(source[end] as string)) continue;
    const before = source.slice(Math.max(0, at - 40), at).trimEnd();
    if (before.endsWith('.') && !before.endsWith('..')) continue;
    const after = source.slice(end, end + PATTERN_LENGTH).replace(SPACE, '');
    if (before.endsWith('++') || before.endsWith('--')) return true;
    if (ASSIGNS.test(after) && !DECLARES.test(source.slice(Math.max(0, at - 40), at))) return true;
    if (/^(of|in)\b/.test(after) && before.endsWith('(')) return true;
    if (/^[,}\]=]/.test(after) && closesPattern(after)) return true;
  }
  return false;
}

/** Whether the brackets around a place close before an assignment: a destructuring target. */
function closesPattern(text: string): boolean {
  let depth = 0;
  for (let i = 0; i < text.length; i++) {
    const character = text[i] as string;
    if ('([{'.includes(character)) depth++;
    else if (')]}'.includes(character)) {
      if (--depth >= 0) continue;
      if (character === ')') return false;
      const rest = text.slice(i + 1).replace(SPACE, '');
      if (/^=(?![=>])/.test(rest) || /^(of|in)\b/.test(rest)) return true;
      if (!/^[,\]}=:)]/.test(rest)) return false;
      depth = 0;
    } else if (character === ';' && depth === 0) {
      return false;
    }
  }
  return false;
}
