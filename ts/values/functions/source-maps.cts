/**
 * Source maps of the scripts whose functions were captured. Node keeps maps only with `--enable-source-maps`, and some compilers keep
 * theirs to themselves; what they all leave is the comment at the end of the script.
 */
import { readFileSync } from 'node:fs';
import { SourceMap, type SourceMapPayload } from 'node:module';
import { fileURLToPath, pathToFileURL } from 'node:url';
import type { Script } from './scripts.cjs';
import { capturedScript } from './scripts.cjs';

/** A place in a source, counted from 1. */
export interface SourcePosition {
  readonly file: string;
  readonly line: number;
  readonly column: number;
}

const COMMENT = '//# sourceMappingURL=';
const maps = new WeakMap<Script, SourceMap | undefined>();

/** Where the text of a script, at a line and a column counted from 1, comes from; undefined when nothing tells. */
export function sourcePosition(url: string, line: number, column: number): SourcePosition | undefined {
  const script = capturedScript(url);
  if (script === undefined) return undefined;
  if (!maps.has(script)) maps.set(script, readMap(script));
  const entry = maps.get(script)?.findEntry(line - 1, column - 1);
  if (entry === undefined || !('originalSource' in entry) || entry.originalSource === undefined) return undefined;
  return {
    file: sourceFile(entry.originalSource),
    line: entry.originalLine + 1,
    column: entry.originalColumn + 1,
  };
}

function sourceFile(source: string): string {
  return source.startsWith('file:') ? fileURLToPath(source) : source;
}

/** A map that is missing or broken leaves the positions of the script itself. */
function readMap(script: Script): SourceMap | undefined {
  const { source } = script;
  const at = source.lastIndexOf(COMMENT);
  if (at < 0) return undefined;
  const [reference = ''] = source.slice(at + COMMENT.length).split(/\s/, 1);
  try {
    const base = script.url.startsWith('/') ? pathToFileURL(script.url).href : script.url;
    const { text, place } = readReference(reference, base);
    const payload = JSON.parse(text) as SourceMapPayload;
    const root = payload.sourceRoot ? `${payload.sourceRoot.replace(/\/$/, '')}/` : '';
    const sources = payload.sources.map((name) => (name ? absolute(root + name, place) : name));
    return new SourceMap({ ...payload, sources, sourceRoot: '' });
  } catch {
    return undefined;
  }
}

/** The map's text, and the URL to which its sources are relative. */
function readReference(reference: string, base: string): { text: string; place: string } {
  if (!reference.startsWith('data:')) {
    const place = new URL(reference, base);
    return { text: readFileSync(place, 'utf8'), place: place.href };
  }
  const comma = reference.indexOf(',');
  const data = reference.slice(comma + 1);
  const isBase64 = reference.slice(0, comma).endsWith(';base64');
  return { text: isBase64 ? Buffer.from(data, 'base64').toString() : decodeURIComponent(data), place: base };
}

function absolute(source: string, place: string): string {
  return URL.canParse(source, place) ? new URL(source, place).href : source;
}
