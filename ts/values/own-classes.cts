/**
 * Classes of this package whose instances are values, told apart by a brand rather than a prototype. Their records name
 * them, so that making them again runs nothing but this package's code: no code flag, and nothing to register anywhere.
 */

/** How instances of such a class travel. */
export interface OwnClass {
  /** The value that an instance is made of; undefined for other objects. */
  partsOf(value: object): unknown;
  /** Makes an instance of what another process sent; throws for what no instance is made of. */
  revive(parts: unknown): object;
}

const known = new Map<string, OwnClass>();

/** Makes a class known, when its module is loaded. */
export function defineOwnClass(name: string, type: OwnClass): void {
  known.set(name, type);
}

/** The class by its name, if its module is loaded. */
export function ownClass(name: string): OwnClass | undefined {
  return known.get(name);
}

/** Name and parts of an instance of such a class. */
export function ownParts(value: object): { name: string; parts: unknown } | undefined {
  for (const [name, type] of known) {
    const parts = type.partsOf(value);
    if (parts !== undefined) return { name, parts };
  }
  return undefined;
}
