/**
 * A store smaller than its data, against what the disk gives in the same run: plain direct I/O, in pieces of 8 MiB, by as many
 * threads as spilling has. HELIOSTAT_QUICK=1 is a sixteenth of the data, to see that it runs: such figures mean nothing.
 * HELIOSTAT_SPILL_DIR is where to write; the disk needs three times the data.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { constants, type FileHandle, open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { get, init, type ObjectRef, put, shutdown, state } from 'heliostat';
import { plan, produceRecords, sortChunks, verifyParts } from '../examples/sort-job.ts';
import { median, Report } from './report.ts';

declare const WebAssembly: { Memory: new (options: { initial: number }) => { readonly buffer: ArrayBuffer } };

const MIB = 2 ** 20;
const QUICK = process.env['HELIOSTAT_QUICK'] === '1';
const STORE = (QUICK ? 64 : 1024) * MIB;
const DATA = 4 * STORE;
/** What one program holds: 4 MiB or 64 MiB. */
const OBJECT = STORE / 16;
/** Of a working set of four times the store. */
const SMALL = STORE / 64;
const ROUNDS = QUICK ? 1 : 3;
const PIECE = 8 * MIB;
/** Threads of Node's pool, and of spilling. */
const WORKERS = 4;
/** Gets under way at a time. */
const AHEAD = 4;

const report = new Report('Spilling');
const dir = mkdtempSync(join(process.env['HELIOSTAT_SPILL_DIR'] ?? tmpdir(), 'heliostat-bench-'));

const GB = 1e9;
const seconds = (started: number) => (performance.now() - started) / 1000;

/** Runs `call` for each number below `count`, some at a time. */
async function together(count: number, width: number, call: (index: number) => Promise<void>): Promise<void> {
  let next = 0;
  const lane = async () => {
    while (next < count) await call(next++);
  };
  await Promise.all(Array.from({ length: width }, lane));
}

/** The disk by itself: bytes per second of direct writes and reads of whole pieces, sequential and at random places. */
class Disk {
  readonly #path = join(dir, 'plain');
  // Memory of WebAssembly begins on a page, as direct I/O needs it.
  readonly #buffers = Array.from({ length: WORKERS }, () =>
    new Uint8Array(new WebAssembly.Memory({ initial: PIECE / 65_536 }).buffer).fill(7),
  );

  async #timed(
    flags: number,
    bytes: number,
    piece: (file: FileHandle, buffer: Uint8Array<ArrayBuffer>, at: number) => Promise<unknown>,
  ) {
    const file = await open(this.#path, flags | constants.O_DIRECT, 0o600);
    const free = [...this.#buffers];
    const started = performance.now();
    await together(bytes / PIECE, WORKERS, async (index) => {
      const buffer = free.pop() as Uint8Array<ArrayBuffer>;
      await piece(file, buffer, index * PIECE);
      free.push(buffer);
    });
    const rate = bytes / seconds(started);
    await file.close();
    return rate;
  }

  write(bytes: number): Promise<number> {
    const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC;
    return this.#timed(flags, bytes, (file, buffer, at) => file.write(buffer, 0, PIECE, at));
  }

  read(bytes: number): Promise<number> {
    return this.#timed(constants.O_RDONLY, bytes, (file, buffer, at) => file.read(buffer, 0, PIECE, at));
  }

  /** Reads pieces of `size` of which each begins at a random one of the file's. */
  readRandomly(bytes: number, size: number, places: readonly number[]): Promise<number> {
    const perObject = size / Math.min(size, PIECE);
    const length = Math.min(size, PIECE);
    const numbers = places.flatMap((place) => Array.from({ length: perObject }, (_, i) => place * size + i * length));
    let next = 0;
    return this.#timed(
      constants.O_RDONLY,
      Math.ceil((numbers.length * length) / PIECE) * PIECE,
      async (file, buffer) => {
        for (let done = 0; done < PIECE && next < numbers.length; done += length)
          await file.read(buffer, 0, length, (numbers[next++] as number) % bytes);
      },
    );
  }

  remove(): void {
    rmSync(this.#path, { force: true });
  }
}

/** The same bytes but for a number at the beginning and the end of each object. */
function filled(size: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(size);
  const words = new Uint32Array(bytes.buffer);
  for (let at = 0; at < words.length; at++) words[at] = Math.imul(at, 0x9e3779b1);
  return bytes;
}

function mark(bytes: Uint8Array<ArrayBuffer>, number: number): Uint8Array<ArrayBuffer> {
  const words = new Uint32Array(bytes.buffer);
  words[0] = number;
  words[words.length - 1] = ~number;
  return bytes;
}

/** Compares every byte. */
function verify(found: Uint8Array, template: Uint8Array<ArrayBuffer>, number: number): void {
  if (Buffer.compare(found, mark(template, number)) !== 0) throw new Error(`object ${number} has other contents`);
}

const spilling = async () => (await state.memory()).spilling;
const start = () =>
  init({ numCpus: 2, objectStoreMemory: STORE, objectSpilling: { uris: [dir], maxIoWorkers: WORKERS } });

/** Puts objects, times what had to leave; then gets all in order, times what came back. */
async function throughAndBack(disk: Disk): Promise<{ out: number; back: number; random: number; diskRandom: number }> {
  await start();
  const template = filled(OBJECT);
  const full = STORE / OBJECT;
  const count = full + DATA / OBJECT;
  const refs: ObjectRef<Uint8Array>[] = [];
  // While the store fills up for the first time, its memory is new and the disk has nothing to do.
  for (let number = 0; number < full; number++) refs.push(put(mark(template, number)));
  let before = (await spilling()).spilledBytes;
  let started = performance.now();
  for (let number = full; number < count; number++) refs.push(put(mark(template, number)));
  const out = ((await spilling()).spilledBytes - before) / seconds(started);

  before = (await spilling()).restoredBytes;
  started = performance.now();
  await together(count, AHEAD, async (number) =>
    verify(await get(refs[number] as ObjectRef<Uint8Array>), template, number),
  );
  const back = ((await spilling()).restoredBytes - before) / seconds(started);
  for (const ref of refs) ref[Symbol.dispose]();
  await shutdown();

  await start();
  const small = filled(SMALL);
  const places = DATA / SMALL;
  const set = Array.from({ length: places }, (_, number) => put(mark(small, number)));
  const wanted = Array.from({ length: places }, (_, i) => Math.imul(i + 1, 0x85ebca6b) >>> 0).map((n) => n % places);
  const diskRandom = await disk.readRandomly(DATA, SMALL, wanted);
  before = (await spilling()).restoredBytes;
  started = performance.now();
  await together(wanted.length, AHEAD, async (index) => {
    const number = wanted[index] as number;
    verify(await get(set[number] as ObjectRef<Uint8Array>), small, number);
  });
  const random = ((await spilling()).restoredBytes - before) / seconds(started);
  await shutdown();
  return { out, back, random, diskRandom };
}

function memcpyRate(): number {
  const source = new Uint8Array(64 * MIB).fill(1);
  const target = new Uint8Array(source.length).fill(2);
  const rates: number[] = [];
  for (let round = 0; round < 8; round++) {
    const started = performance.now();
    target.set(source);
    rates.push(source.length / seconds(started));
  }
  return median(rates.slice(2));
}

/** A sort of four times the store: its time, and that of the disk and of copies in memory alone for what it moved. */
async function sort(write: number, read: number): Promise<{ time: number; bound: number }> {
  await start();
  const job = plan(DATA, STORE);
  const chunks = await produceRecords(job);
  const before = await spilling();
  const started = performance.now();
  const parts = await sortChunks(chunks);
  const time = seconds(started);
  const after = await spilling();
  await verifyParts(parts, job);
  await shutdown();
  const written = (after.spilledBytes - before.spilledBytes) / write;
  const restored = (after.restoredBytes - before.restoredBytes) / read;
  // Each of the two rounds copies every record once.
  return { time, bound: written + restored + (2 * DATA) / memcpyRate() };
}

const disk = new Disk();
const rounds: Record<'write' | 'read' | 'diskRandom' | 'out' | 'back' | 'random' | 'time' | 'bound', number>[] = [];
try {
  for (let round = 0; round < ROUNDS; round++) {
    const write = await disk.write(DATA);
    const read = await disk.read(DATA);
    const through = await throughAndBack(disk);
    disk.remove();
    rounds.push({ write, read, ...through, ...(await sort(write, read)) });
  }
} finally {
  rmSync(dir, { recursive: true, force: true });
}
const of = (name: keyof (typeof rounds)[0]) => median(rounds.map((round) => round[name]));
const share = (part: keyof (typeof rounds)[0], whole: keyof (typeof rounds)[0]) =>
  median(rounds.map((round) => round[part] / round[whole]));
const gib = DATA / 2 ** 30;
report.add({ name: `the disk, writing ${gib} GiB`, 'GB/s': of('write') / GB });
report.add({ name: `the disk, reading ${gib} GiB`, 'GB/s': of('read') / GB });
report.add({ name: `the disk, reading at random`, 'GB/s': of('diskRandom') / GB });
report.add({
  name: `put ${gib} GiB through ${gib / 4} GiB`,
  'GB/s': of('out') / GB,
  'of the disk': share('out', 'write'),
});
report.add({ name: 'get all of it back', 'GB/s': of('back') / GB, 'of the disk': share('back', 'read') });
report.add({ name: 'random gets', 'GB/s': of('random') / GB, 'of the disk': share('random', 'diskRandom') });
report.add({ name: `external sort of ${gib} GiB`, seconds: of('time'), 'of the bound': share('bound', 'time') });
report.finish();
