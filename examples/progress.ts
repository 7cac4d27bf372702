/** Shows how far a program is: a bar that redraws itself on a terminal, now and then a plain line in a log file. */
export class Progress {
  readonly #stream = process.stderr;
  readonly #started = performance.now();
  readonly #total: number;
  readonly #unit: string;
  #done = 0;
  #lastLine = performance.now();

  constructor(total: number, unit: string) {
    this.#total = total;
    this.#unit = unit;
    this.#draw();
  }

  /** Counts one more as done; `line` is printed on standard output, above the bar. */
  step(line?: string): void {
    this.#done += 1;
    this.clear();
    if (line !== undefined) console.log(line);
    this.#draw();
  }

  /** Takes the bar away, so that what is written next begins on an empty line. */
  clear(): void {
    if (this.#stream.isTTY) this.#stream.write('\r\x1b[K');
  }

  seconds(): number {
    return (performance.now() - this.#started) / 1000;
  }

  #draw(): void {
    if (this.#stream.isTTY) {
      const filled = Math.round((20 * this.#done) / this.#total);
      const bar = '█'.repeat(filled) + '░'.repeat(20 - filled);
      if (this.#done < this.#total) this.#stream.write(`${bar} ${this.#done}/${this.#total} ${this.#unit}`);
    } else if (this.#done === 0 || performance.now() - this.#lastLine > 1000) {
      this.#lastLine = performance.now();
      this.#stream.write(`${this.#done}/${this.#total} ${this.#unit} after ${this.seconds().toFixed(1)} s\n`);
    }
  }
}
