/** Working directories: packed, unpacked once for the node, gone with the session. */
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import test from 'ava';
import { get, init, remote, shutdown } from 'heliostat';
import { withCluster } from '../support/cluster.js';
import { directory, refused } from './support.js';

withCluster(test);

const read = remote((path: string) => readFileSync(path, 'utf8'));
const look = remote(() => ({ cwd: process.cwd(), names: readdirSync('.').sort(), pid: process.pid }));

async function packages(): Promise<string> {
  const { address } = await init({ ignoreReinit: true });
  return join(dirname(address.slice('unix:'.length)), 'packages');
}

test.serial("a task's current directory is a copy of the directory as it was at its first call", async (t) => {
  const workingDir = directory({ 'data/table.txt': 'one', 'main.js': '', '.env': 'A=1' });
  const own = look.options({ runtimeEnv: { workingDir } });
  const { cwd, names } = await own.remote().get();
  t.deepEqual(names, ['.env', 'data', 'main.js']);
  t.not(cwd, workingDir);
  t.is(dirname(cwd), await packages());
  const reads = read.options({ runtimeEnv: { workingDir } });
  t.is(await reads.remote('data/table.txt').get(), 'one');
  writeFileSync(join(workingDir, 'data/table.txt'), 'two');
  t.is(await reads.remote('data/table.txt').get(), 'one', 'what was packed stays as it was');
  t.is(
    await read.options({ runtimeEnv: { workingDir } }).remote('data/table.txt').get(),
    'two',
    'a new one is packed anew',
  );
  t.is((await look.remote().get()).cwd, process.cwd(), 'others run where the driver does');
});

test.serial('equal contents share copies and workers, wherever they come from', async (t) => {
  const [one, other] = [directory({ a: '1', 'b/c': '2' }), directory({ 'b/c': '2', a: '1' })];
  const first = await look
    .options({ runtimeEnv: { workingDir: one } })
    .remote()
    .get();
  const second = await look
    .options({ runtimeEnv: { workingDir: other } })
    .remote()
    .get();
  t.is(second.cwd, first.cwd);
  t.is(second.pid, first.pid);
  const further = { workingDir: other, envVars: { A: '1' } };
  const third = await look.options({ runtimeEnv: further }).remote().get();
  t.is(third.cwd, first.cwd, 'another environment with the same directory');
  t.not(third.pid, first.pid);
});

test.serial('tasks of a task run in its directory', async (t) => {
  const workingDir = directory({ 'data.txt': 'inherited' });
  const outer = remote(
    async () => {
      const inner = read.options({ runtimeEnv: { envVars: { A: '1' } } });
      return [await get(read.remote('data.txt')), await get(inner.remote('data.txt'))];
    },
    { runtimeEnv: { workingDir } },
  );
  t.deepEqual(await outer.remote().get(), ['inherited', 'inherited']);
});

test.serial('ignore files, and what no task needs, stay out', async (t) => {
  const workingDir = directory({
    '.gitignore': 'dist/\n*.log\n',
    '.heliostatignore': 'big/\n!dist/\n',
    'dist/main.js': '',
    'big/data.bin': '',
    'a.log': '',
    'node_modules/x/index.js': '',
    '.git/HEAD': '',
    kept: '',
  });
  const { names } = await look.options({ runtimeEnv: { workingDir } }).remote().get();
  t.deepEqual(names, ['.gitignore', '.heliostatignore', 'dist', 'kept']);
});

test.serial('packages in the directory are found first, by import and by require', async (t) => {
  const own = {
    'package.json': '{ "name": "acorn", "version": "99.0.0", "main": "index.js" }',
    'index.js': 'exports.version = "of the directory";',
  };
  const workingDir = directory({
    '.heliostatignore': '!node_modules/\n',
    ...Object.fromEntries(Object.entries(own).map(([name, text]) => [`node_modules/acorn/${name}`, text])),
  });
  const version = remote(async () => ((await import('acorn')) as { version: string }).version);
  t.is(await version.options({ runtimeEnv: { workingDir } }).remote().get(), 'of the directory');
  t.not(await version.remote().get(), 'of the directory');
  const without = directory({ a: '' });
  t.is(
    await version
      .options({ runtimeEnv: { workingDir: without } })
      .remote()
      .get(),
    await version.remote().get(),
    'what is not there is found where the program has it',
  );
});

test.serial('links inside stay links, and those that lead out are refused by name', async (t) => {
  const workingDir = directory({ 'real/file': 'through a link' });
  symlinkSync('real', join(workingDir, 'link'));
  t.is(await read.options({ runtimeEnv: { workingDir } }).remote('link/file').get(), 'through a link');
  symlinkSync('/etc', join(workingDir, 'out'));
  const error = await refused(t, read.options({ runtimeEnv: { workingDir } }).remote('out/passwd'));
  t.regex(error.message, /out leads to \/etc, which is outside/);
  t.regex(error.hint ?? '', /\.heliostatignore/);
});

test.serial('a directory that is too large is refused with its biggest files, and not read', async (t) => {
  const workingDir = directory({ small: 'x', 'huge.bin': '', 'big.bin': '' });
  truncateSync(join(workingDir, 'huge.bin'), 2 ** 40);
  truncateSync(join(workingDir, 'big.bin'), 2 ** 30);
  const error = await refused(t, look.options({ runtimeEnv: { workingDir } }).remote());
  t.regex(error.message, /more than the 256\.0 MiB.*huge\.bin \(1048576\.0 MiB\), big\.bin \(1024\.0 MiB\), small/);
});

test.serial('a directory that is missing is said, again and again, and holds up nobody else', async (t) => {
  const missing = join(directory({}), 'nowhere');
  const lost = look.options({ runtimeEnv: { workingDir: missing } });
  for (let round = 0; round < 3; round += 1) t.true((await refused(t, lost.remote())).message.includes(missing));
  t.is((await look.remote().get()).cwd, process.cwd());
  const file = join(directory({ file: '' }), 'file');
  t.true((await refused(t, look.options({ runtimeEnv: { workingDir: file } }).remote())).message.includes(file));
  mkdirSync(missing);
  t.deepEqual(
    (
      await look
        .options({ runtimeEnv: { workingDir: missing } })
        .remote()
        .get()
    ).names,
    [],
  );
});

/** A zstd frame that holds these bytes as they are. */
function zstd(bytes: Buffer): Buffer {
  const head = Buffer.alloc(12);
  head.writeUInt32LE(0xfd2fb528, 0);
  head.writeUInt8(0xa0, 4);
  head.writeUInt32LE(bytes.length, 5);
  head.writeUIntLE((bytes.length << 3) | 1, 9, 3);
  return Buffer.concat([head, bytes]);
}

/** A tar archive of one file. */
function tar(name: string, text: string): Buffer {
  const header = Buffer.alloc(512);
  header.write(name);
  header.write('0000644\0', 100);
  header.write(`${text.length.toString(8).padStart(11, '0')}\0`, 124);
  header.write('        0ustar  \0', 148);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  const body = Buffer.alloc(512);
  body.write(text);
  return Buffer.concat([header, body, Buffer.alloc(1024)]);
}

test.serial('packages that mean harm are refused, and leave nothing', async (t) => {
  const workingDir = directory({ 'data.txt': 'before' });
  const outer = remote(
    async (replacements: Record<string, Uint8Array>) => {
      const { rmSync, writeFileSync: write } = await import('node:fs');
      const copy = process.cwd();
      const errors: string[] = [];
      for (const [index, bytes] of Object.values(replacements).entries()) {
        rmSync(copy, { recursive: true, force: true });
        write(`${copy}.tar.zst`, bytes);
        // A worker of another environment needs the copy that is not there any more.
        const other = read.options({ runtimeEnv: { envVars: { INDEX: String(index) } } });
        errors.push(await get(other.remote('data.txt')).catch((error: Error) => `${error.name}: ${error.message}`));
      }
      return { errors, copy };
    },
    { runtimeEnv: { workingDir } },
  );
  const evil = join(await packages(), '../evil');
  const { errors, copy } = await outer
    .remote({
      upwards: zstd(tar('../../evil', 'x')),
      absolute: zstd(tar(evil, 'x')),
      other: zstd(tar('data.txt', 'other')),
      none: Buffer.from('no package'),
    })
    .get();
  t.regex(errors[0] ?? '', /RuntimeEnvSetupError: .*"\.\.\/\.\.\/evil" leads upwards/);
  t.regex(errors[1] ?? '', /RuntimeEnvSetupError: .*is absolute/);
  t.regex(errors[2] ?? '', /RuntimeEnvSetupError: .*hash/);
  t.regex(errors[3] ?? '', /RuntimeEnvSetupError: .*cannot read the package/);
  t.false(existsSync(evil));
  t.false(existsSync(copy));
  t.deepEqual(
    readdirSync(dirname(copy)).filter((name) => name.endsWith('.part')),
    [],
  );
  // Packed again, it is well. (The workers that were there have lost their directory for good.)
  const fresh = read.options({ runtimeEnv: { workingDir, envVars: { FRESH: '1' } } });
  t.is(await fresh.remote('data.txt').get(), 'before');
});

test.serial('a session directory that cannot be written in is said', async (t) => {
  await shutdown();
  await init({ numCpus: 2, objectStoreMemory: 256 << 20 });
  writeFileSync(await packages(), 'in the way');
  const error = await refused(t, look.options({ runtimeEnv: { workingDir: directory({ a: '' }) } }).remote());
  t.regex(error.message, /cannot write the package/);
  t.is((await look.remote().get()).cwd, process.cwd());
});

test.serial('the directory of init() is that of every task, and goes with the session', async (t) => {
  await shutdown();
  const workingDir = directory({ 'job.txt': 'of the job' });
  const { address } = await init({ numCpus: 1, objectStoreMemory: 64 << 20, runtimeEnv: { workingDir } });
  t.is(await read.remote('job.txt').get(), 'of the job');
  t.is(
    await read
      .options({ runtimeEnv: { envVars: { A: '1' } } })
      .remote('job.txt')
      .get(),
    'of the job',
  );
  const { cwd } = await look.remote().get();
  t.true(existsSync(cwd));
  await shutdown();
  t.false(existsSync(cwd));
  t.false(existsSync(dirname(address.slice('unix:'.length))));
  await init({ numCpus: 1, objectStoreMemory: 64 << 20, runtimeEnv: { workingDir: join(workingDir, 'missing') } });
  await refused(t, read.remote('job.txt'));
  t.is(
    await read.options({ runtimeEnv: { workingDir } }).remote('job.txt').get(),
    'of the job',
    'a task may have its own',
  );
  await shutdown();
  await init({ numCpus: 2, objectStoreMemory: 256 << 20 });
});
