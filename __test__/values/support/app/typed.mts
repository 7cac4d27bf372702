// @ts-nocheck: it lives in a project of its own, made by the test
import { basename } from 'node:path';
import { twice } from 'plain-esm';
import { Box, Color, wrap } from './typed-util.mts';

const FACTOR: number = 10;
interface Place {
  x: number;
}
class Account<T extends number> {
  static readonly kind = 'account';
  declare owner: string;
  private total: number = 0;
  #rate = 2;
  add(value: T): this {
    this.total += value * this.#rate;
    return this;
  }
  get value(): number {
    return this.total;
  }
}
const account = new Account<number>().add(3);
const inner = (place: Place): [number, string] => {
  const local = function named(q: number) {
    return q + 1;
  };
  return [local(place.x), local.name];
};

export const shapes: any[] = [
  { name: 'typed arrow', run: (x: number) => x * FACTOR, args: [4] },
  { name: 'typed imports', run: (x: number) => [twice(x), basename('/a/b')], args: [3] },
  { name: 'typed relative imports', run: () => [wrap(2), Color.Red, new Box(4).get()] },
  { name: 'typed class with private state', run: () => [account.add(1).value, Account.kind] },
  { name: 'typed named inner function', run: () => inner({ x: 1 }) },
  { name: 'typed async with casts', run: async (x: unknown) => x as number satisfies number, args: [3] },
  {
    name: 'typed error shows its line',
    run: () => {
      throw new Error('typed here');
    },
    throws: /typed here/,
  },
];
