/**
 * Identities that outlive a message: a class or a unique symbol is the same one in a process however many values
 * bring it there, and comes home as itself.
 */
import { randomUUID } from 'node:crypto';
import { Finalizers } from '../realm.cjs';

/** Ids of things, and the things by id for as long as they live. */
class IdentityMap<T extends WeakKey> {
  private readonly ids = new WeakMap<T, string>();
  private readonly byId = new Map<string, WeakRef<T>>();
  private readonly forget = new Finalizers<string>((id) => {
    if (this.byId.get(id)?.deref() === undefined) this.byId.delete(id);
  });

  idOf(thing: T): string {
    let id = this.ids.get(thing);
    if (id === undefined) {
      id = randomUUID();
      this.adopt(id, thing);
    }
    return id;
  }

  find(id: string): T | undefined {
    return this.byId.get(id)?.deref();
  }

  /** Gives a thing the id that it has elsewhere. */
  adopt(id: string, thing: T): void {
    this.ids.set(thing, id);
    this.byId.set(id, new WeakRef(thing));
    this.forget.register(thing, id);
  }
}

// Symbols may be weak keys on every supported Node; the types of ES2022 do not know it.
const symbols = new IdentityMap<WeakKey>();

/** The id of a symbol that is neither well known nor registered. */
export function symbolId(symbol: symbol): string {
  return symbols.idOf(symbol as unknown as WeakKey);
}

/** The symbol with this id, made at its first arrival. */
export function symbolById(id: string, description: string | undefined): symbol {
  const known = symbols.find(id) as unknown as symbol | undefined;
  if (known !== undefined) return known;
  const made = Symbol(description);
  symbols.adopt(id, made as unknown as WeakKey);
  return made;
}

/** Classes by value. */
export const classes = new IdentityMap<CallableFunction>();
