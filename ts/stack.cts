/** Stack traces: remote frames, mapped to the user's source lines. */
import { findSourceMap } from 'node:module';
import { fileURLToPath } from 'node:url';
import { type SourcePosition, sourcePosition } from './values/functions/source-maps.cjs';

const FRAME = /^ {4}at /;
const POSITION = /(\(|at (?:async )?)((?:file:\/\/|webpack-internal:\/\/|\/)[^():]*):(\d+):(\d+)(\)?)$/;
/** Frames of Node's own machinery say nothing to a user, and neither do this package's. */
const NODE = /^ {4}at (?:async )?(?:node:internal|.*\(node:)/;

function isOwn(line: string): boolean {
  return NODE.test(line) || line.includes(__dirname);
}

/** The frames of a stack, without its first lines and without the package's own. */
export function frames(stack: string): string {
  return stack
    .split('\n')
    .filter((line) => FRAME.test(line) && !isOwn(line))
    .join('\n');
}

/** A stack without the package's own frames. */
export function withoutOwn(stack: string): string {
  return stack
    .split('\n')
    .filter((line) => !FRAME.test(line) || !isOwn(line))
    .join('\n');
}

/**
 * Maps every frame to its source, where this process knows a source map of the script: it compiled what it sent,
 * the worker did not.
 */
export function mapStack(stack: string): string {
  return stack.split('\n').map(mapFrame).join('\n');
}

function mapFrame(line: string): string {
  const found = POSITION.exec(line);
  if (!FRAME.test(line) || found === null) return line;
  const [whole, before, script, row, column, after] = found as unknown as [
    string,
    string,
    string,
    string,
    string,
    string,
  ];
  const entry = lookUp(script, Number(row), Number(column));
  if (entry === undefined) return line;
  return `${line.slice(0, line.length - whole.length)}${before}${entry.file}:${entry.line}:${entry.column}${after}`;
}

function lookUp(script: string, line: number, column: number): SourcePosition | undefined {
  try {
    const path = script.startsWith('file:') ? fileURLToPath(script) : script;
    const map = findSourceMap(script) ?? findSourceMap(path);
    const entry = map?.findEntry(line - 1, column - 1);
    if (entry === undefined || !('originalSource' in entry) || entry.originalSource === undefined) {
      return sourcePosition(script, line, column);
    }
    const source = entry.originalSource;
    const file = source.startsWith('file:') ? fileURLToPath(source) : source;
    return { file, line: entry.originalLine + 1, column: entry.originalColumn + 1 };
  } catch {
    return undefined;
  }
}
