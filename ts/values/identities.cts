/**
 * Which objects a message holds, numbered in the order in which they were met. Most messages meet each object once: for
 * them a set is enough, whose order is the numbering, and one look-up an object. The numbers are worked out when the
 * first object is met again.
 */
export class Identities {
  private readonly met = new Set<object | symbol>();
  private readonly numbers = new Map<object | symbol, number>();
  private isNumbered = false;
  private count = 0;
  /** Whether this message asked for a number: the next one is likely to do so as well. */
  private wasAsked = false;

  /** Numbers an object that is met for the first time; false when it has its number already. */
  enter(value: object | symbol): boolean {
    const { count } = this;
    if (this.isNumbered) {
      if (this.numbers.has(value)) return false;
      this.numbers.set(value, count);
    } else {
      this.met.add(value);
      if (this.met.size === count) return false;
    }
    this.count = count + 1;
    return true;
  }

  /** The next number, for an object that is known to be new. */
  add(value: object | symbol): number {
    if (this.isNumbered) this.numbers.set(value, this.count);
    else this.met.add(value);
    return this.count++;
  }

  /** The number of an object. */
  find(value: object | symbol): number | undefined {
    if (!this.isNumbered) {
      if (!this.met.has(value)) return undefined;
      let number = 0;
      for (const each of this.met) this.numbers.set(each, number++);
      this.isNumbered = true;
    }
    const found = this.numbers.get(value);
    if (found !== undefined) this.wasAsked = true;
    return found;
  }

  /** Forgets the message. */
  clear(): void {
    if (this.count === 0) return;
    if (this.met.size > 0) this.met.clear();
    if (this.numbers.size > 0) this.numbers.clear();
    this.isNumbered = this.wasAsked;
    this.wasAsked = false;
    this.count = 0;
  }
}
