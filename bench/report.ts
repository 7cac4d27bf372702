/** What a benchmark found: kept as rows, printed as a table, and handed to `main.ts` where that started the benchmark. */
import { availableParallelism, cpus, loadavg, totalmem } from 'node:os';

/** One line of the table. Times are microseconds unless the name says otherwise. */
export interface Row {
  readonly name: string;
  readonly [measure: string]: string | number;
}

export class Report {
  readonly #title: string;
  readonly #rows: Row[] = [];
  readonly #loadBefore = loadavg()[0] as number;

  constructor(title: string) {
    this.#title = title;
  }

  add(row: Row): void {
    this.#rows.push(row);
    process.stderr.write(`  ${row.name}\n`);
  }

  finish(): void {
    console.log(`\n${this.#title}`);
    printTable(this.#rows);
    process.send?.({ title: this.#title, loadBefore: this.#loadBefore, rows: this.#rows });
  }
}

/** What the figures hold for. */
export function machine(): Record<string, string | number> {
  return {
    node: process.version,
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: availableParallelism(),
    memoryGiB: Math.round(totalmem() / 2 ** 30),
  };
}

function printTable(rows: readonly Row[]): void {
  const measures = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const cells = rows.map((row) => measures.map((measure) => format(row[measure])));
  const widths = measures.map((measure, i) =>
    Math.max(measure.length, ...cells.map((line) => (line[i] as string).length)),
  );
  const print = (line: readonly string[]) =>
    console.log(
      line.map((cell, i) => (i ? cell.padStart(widths[i] as number) : cell.padEnd(widths[i] as number))).join('  '),
    );
  print(measures.map((measure) => (measure === 'name' ? '' : measure)));
  for (const line of cells) print(line);
}

function format(value: string | number | undefined): string {
  if (typeof value !== 'number') return value ?? '';
  return value.toLocaleString('en', { maximumFractionDigits: value < 10 ? 2 : value < 100 ? 1 : 0 });
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

export function quantile(values: readonly number[], part: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] as number;
}

/** p50, mean and p99: processes that sleep are woken late now and then, which p50 alone would hide. */
export function summary(microseconds: readonly number[]): { p50: number; mean: number; p99: number } {
  const mean = microseconds.reduce((sum, time) => sum + time, 0) / microseconds.length;
  return { p50: median(microseconds), mean, p99: quantile(microseconds, 0.99) };
}

/** The microseconds that each of `runs` calls takes, after some that don't count. */
export async function timeEach(runs: number, call: () => unknown, warmUp = Math.ceil(runs / 4)): Promise<number[]> {
  const times: number[] = [];
  for (let i = 0; i < warmUp + runs; i++) {
    const started = performance.now();
    await call();
    const time = (performance.now() - started) * 1000;
    if (i >= warmUp) times.push(time);
  }
  return times;
}
