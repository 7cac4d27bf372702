/**
 * Standard streams of a worker. Node writes to pipes without waiting: what a full pipe does not take would wait in this process,
 * in any amount, behind the names of later tasks, and be lost with it. So writes wait for room instead, as they do for files.
 */

type Stream = NodeJS.WriteStream & { _handle?: { setBlocking?(blocking: boolean): void } };

/** Done when a stream is first used: most workers write nothing. */
export function waitForRoom(): void {
  for (const name of ['stdout', 'stderr'] as const) {
    const property = Object.getOwnPropertyDescriptor(process, name);
    if (property?.get === undefined) continue;
    const make = property.get;
    let made: Stream | undefined;
    const get = () => {
      if (made === undefined) {
        made = Reflect.apply(make, process, []) as Stream;
        made._handle?.setBlocking?.(true);
      }
      return made;
    };
    Object.defineProperty(process, name, { ...property, get });
  }
}
