import type { Writer } from '../writer.cjs';
import { Refusal } from '../refusal.cjs';
export class FunctionWriter {
  constructor(readonly out: Writer) {}
  write(_fn: CallableFunction): void { throw new Refusal('is a function'); }
  writeNamed(_value: object): boolean { return false; }
  checkPrototype(_value: object, _prototype: object): (() => void) | undefined { return undefined; }
  writePrototype(prototype: object): void { this.out.value(prototype); }
  flush(): void {}
  writeTables(): void {}
}
