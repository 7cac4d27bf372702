/** What tests of runtime environments share: directories of programs, and workers as tasks see them. */
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { isHeliostatError, type ObjectRef, RuntimeEnvSetupError } from 'heliostat';

/** A new directory with these files, by their paths. */
export function directory(files: Record<string, string>): string {
  const root = mkdtempSync(join(tmpdir(), 'heliostat-test-'));
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
  return root;
}

/** The error of a task whose environment cannot be set up. */
export async function refused(t: ExecutionContext, ref: ObjectRef): Promise<RuntimeEnvSetupError> {
  const error = await t.throwsAsync(ref.get(), { instanceOf: RuntimeEnvSetupError, code: 'RUNTIME_ENV_SETUP' });
  t.true(isHeliostatError(error, 'RUNTIME_ENV_SETUP'));
  t.truthy(error?.hint, 'it says what to do');
  t.true(error?.cause instanceof Error, 'it says why');
  return error as RuntimeEnvSetupError;
}
