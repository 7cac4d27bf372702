/** Servers that speak what object stores speak: emulators in processes of their own. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { eventually } from './cluster.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
/** Azurite's account, which is the same everywhere. */
const ACCOUNT = 'devstoreaccount1';
const KEY = 'Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==';

export interface Cloud {
  /** The bucket, or what the server calls so. */
  readonly uri: string;
  /** Settings of the storage client. */
  readonly storage: Record<string, string>;
  /** Names of all objects in the bucket. */
  list(): Promise<string[]>;
  end(): void;
}

/** Undefined where the emulator is not installed. */
async function started(
  program: string,
  args: string[],
  address: (output: string) => string | undefined,
): Promise<[ChildProcess, string] | undefined> {
  if (!existsSync(program)) return undefined;
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => {
      output += chunk.toString();
    });
  const url = await eventually(
    () => `a server (it said: ${output})`,
    async () => {
      const found = address(output);
      return found !== undefined &&
        (await fetch(found).then(
          () => true,
          () => false,
        ))
        ? found
        : undefined;
    },
  );
  return [child, url];
}

/** Azurite, with a container `bucket`. The client of the storage finds it by an environment variable. */
export async function azurite(): Promise<Cloud | undefined> {
  const program = join(ROOT, 'target/azurite/node_modules/.bin/azurite-blob');
  const args = ['--blobPort', '0', '--skipApiVersionCheck', '--disableTelemetry', '--inMemoryPersistence'];
  const server = await started(program, args, (output) => /successfully listens on (http:\S+)/.exec(output)?.[1]);
  if (server === undefined) return undefined;
  const [child, url] = server;
  const request = async (method: string, query: string) => {
    const date = new Date().toUTCString();
    const headers = `x-ms-date:${date}\nx-ms-version:2021-12-02\n`;
    const resource = [...new URLSearchParams(query)]
      .sort()
      .map(([name, value]) => `\n${name}:${value}`)
      .join('');
    const text = `${method}${'\n'.repeat(12)}${headers}/${ACCOUNT}/${ACCOUNT}/bucket${resource}`;
    const signature = createHmac('sha256', Buffer.from(KEY, 'base64')).update(text).digest('base64');
    const answer = await fetch(`${url}/${ACCOUNT}/bucket?${query}`, {
      method,
      headers: { 'x-ms-date': date, 'x-ms-version': '2021-12-02', authorization: `SharedKey ${ACCOUNT}:${signature}` },
    });
    const body = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${query}: ${answer.status} ${body}`);
    return body;
  };
  await request('PUT', 'restype=container');
  process.env['AZURITE_BLOB_STORAGE_URL'] = url;
  return {
    uri: 'az://bucket',
    storage: { use_emulator: 'true', allow_http: 'true' },
    async list() {
      const body = await request('GET', 'comp=list&restype=container');
      return [...body.matchAll(/<Name>([^<]*)<\/Name>/g)].map(([, name]) => name as string);
    },
    end: () => void child.kill('SIGKILL'),
  };
}
