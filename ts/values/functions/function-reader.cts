import type { ByteReader } from '../byte-reader.cjs';
import type { Reader } from '../reader.cjs';
export class FunctionReader {
  constructor(readonly reader: Reader, _modules: boolean) {}
  flush(): void {}
  privateInstance(): object { return {}; }
}
export function importModules(_reader: ByteReader): Promise<void> | undefined { return undefined; }
