import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import test from 'ava';
import ts from 'typescript';

const require = createRequire(import.meta.url);

/** The names that a declaration file exports as values; interfaces and type aliases leave no trace at run time. */
function exportedValues(source: string): string[] {
  const file = ts.createSourceFile('index.d.ts', source, ts.ScriptTarget.Latest);
  const names: string[] = [];
  for (const statement of file.statements) {
    const exported =
      ts.canHaveModifiers(statement) &&
      ts.getModifiers(statement)?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword);
    if (!exported) continue;
    if (ts.isVariableStatement(statement)) {
      for (const { name } of statement.declarationList.declarations) names.push(name.getText(file));
    } else if (
      ts.isFunctionDeclaration(statement) ||
      ts.isClassDeclaration(statement) ||
      ts.isEnumDeclaration(statement)
    ) {
      if (statement.name) names.push(statement.name.text);
    }
  }
  return [...new Set(names)].sort();
}

test('index.d.ts declares every export of the addon, and nothing else', async (t) => {
  const declared = exportedValues(await readFile(new URL('../index.d.ts', import.meta.url), 'utf8'));
  const native = require('../native.cjs');
  t.deepEqual(declared, Object.keys(native).sort());
  t.true(declared.length > 0);
});
