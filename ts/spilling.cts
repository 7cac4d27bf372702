/** Settings of spilling. */
import { resolve } from 'node:path';
import type { SpillSettings } from '#native' with { 'resolution-mode': 'import' };
import * as check from './check.cjs';
import type { SpillOptions } from './types.cjs';

const KNOWN: Record<keyof SpillOptions, (value: unknown) => void> = {
  uris: (value) => {
    if (value === undefined) return;
    if (!Array.isArray(value) || value.length === 0)
      throw new TypeError(`objectSpilling.uris must be an array of directories or URIs, got ${check.describe(value)}`);
    for (const [index, uri] of value.entries()) check.string(uri ?? null, `objectSpilling.uris[${index}]`);
  },
  minSpillingSize: (value) => check.number(value, 'objectSpilling.minSpillingSize', { min: 1, finite: true }),
  bufferSize: (value) => check.number(value, 'objectSpilling.bufferSize', { min: 1, finite: true }),
  maxIoWorkers: (value) => check.number(value, 'objectSpilling.maxIoWorkers', { min: 1, max: 64, integer: true }),
  threshold: (value) => check.number(value, 'objectSpilling.threshold', { min: 0, max: 1 }),
  storage: (value) => {
    check.options(value, 'objectSpilling.storage');
    for (const [name, setting] of Object.entries(value ?? {}))
      check.string(setting ?? null, `objectSpilling.storage.${name}`);
  },
};

/** Refuses settings that make no sense. */
export function checkSpilling(value: unknown): void {
  check.options(value, 'objectSpilling');
  for (const [name, setting] of Object.entries(value ?? {})) {
    const known = KNOWN[name as keyof SpillOptions];
    if (known === undefined)
      throw new TypeError(`objectSpilling has no option ${name}; it has ${Object.keys(KNOWN).join(', ')}`);
    known(setting);
  }
}

/** The settings as native code takes them: directories are those of this process's working directory. */
export function spillSettings(options: SpillOptions): SpillSettings {
  const settings: Record<string, unknown> = { ...options };
  settings['uris'] = options.uris?.map((uri) => (/^[a-z][a-z0-9+.-]*:\/\//i.test(uri) ? uri : resolve(uri)));
  for (const [name, value] of Object.entries(settings)) if (value === undefined) delete settings[name];
  return settings as SpillSettings;
}
