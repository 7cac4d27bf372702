/** Where the program made its objects: for messages about a full store. */
import { native } from './native.cjs';
import { type CallSite, siteOfHandle } from './object-ref.cjs';
import { frames } from './stack.cjs';

/** Frames of the caller that are kept, formatted only when somebody reads them. */
const SITE_FRAMES = 8;
/** The biggest objects tell enough, and texts of stacks take time. */
const MOST = 200;
const NAMED = 3;

/** The place of a call, below one of this package's own functions. */
export function callSite(below: CallableFunction): CallSite {
  const site: CallSite = {};
  const limit = Error.stackTraceLimit;
  // Setting it takes as long as the frames do: the program's own limit serves when it is near ours.
  const near = limit >= SITE_FRAMES / 2 && limit <= SITE_FRAMES * 2;
  if (!near) Error.stackTraceLimit = SITE_FRAMES;
  Error.captureStackTrace(site, below);
  if (!near) Error.stackTraceLimit = limit;
  return site;
}

/** The same of a put, with as little as names the caller: half the price, which is 2 % of a put of 1 MiB. */
export function putSite(below: CallableFunction): CallSite {
  const site: CallSite = {};
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = 2;
  Error.captureStackTrace(site, below);
  Error.stackTraceLimit = limit;
  return site;
}

/** The line of the program, as `name (file:line:column)`; empty where none is known. */
export function textOf(site: CallSite | undefined): string {
  const [frame] = frames(site?.stack ?? '').split('\n');
  return frame === undefined ? '' : frame.trim().replace(/^at /, '');
}

/** Where most of what this process holds in the store was made, as texts, those with most bytes first. */
export function biggestSites(): string[] {
  const stored = native.storedHandles(MOST);
  const found = new Map<string, { bytes: number; objects: number }>();
  for (let at = 0; at < stored.length; at += 2) {
    const text = textOf(siteOfHandle(stored[at] as number));
    if (text === '') continue;
    const sum = found.get(text) ?? { bytes: 0, objects: 0 };
    sum.bytes += stored[at + 1] as number;
    sum.objects += 1;
    found.set(text, sum);
  }
  return [...found]
    .sort(([, a], [, b]) => b.bytes - a.bytes)
    .slice(0, NAMED)
    .map(([text, { bytes, objects }]) => `${objects} of ${bytes} bytes from ${text}`);
}
