/**
 * Sorts four times as much as the object store's memory holds: records are made, sorted and merged by tasks, and whatever nobody
 * reads at the moment is on disk meanwhile. Usage: `npx tsx examples/external-sort.ts [MiB of data] [MiB of the store]`.
 */
import { init, shutdown, state } from 'heliostat';
import { plan, produceRecords, sortChunks, verifyParts } from './sort-job.ts';

const MIB = 2 ** 20;
const [dataMiB = 1024, storeMiB = dataMiB / 4] = process.argv.slice(2).map(Number);
const job = plan(dataMiB * MIB, storeMiB * MIB);

await init({ objectStoreMemory: storeMiB * MIB });
const chunks = await produceRecords(job);
console.log(`${job.records} records, ${dataMiB} MiB, in a store of ${storeMiB} MiB`);

const started = performance.now();
const parts = await sortChunks(chunks);
const seconds = (performance.now() - started) / 1000;
const sorted = await verifyParts(parts, job);
console.log(`${sorted} records are in order in ${parts.length} parts`);

const { spilling } = await state.memory();
const mib = (bytes: number) => Math.round(bytes / MIB);
console.error(
  `sorted in ${seconds.toFixed(1)} s; ${mib(spilling.spilledBytes)} MiB were spilled and ${mib(spilling.restoredBytes)} MiB brought back`,
);
await shutdown();
