/**
 * Realms: under test runners that give each file a vm context of its own, this module's `Object` is not that of the
 * addon and of Node's own modules. What they make is turned into objects of this realm where it enters.
 */
import { runInThisContext } from 'node:vm';

/** The global object of the realm that Node, and with it the addon, was started in. */
export const outer = runInThisContext('globalThis') as typeof globalThis;

/** Whether this module runs in another realm than the addon; in ordinary programs it never does. */
export const isInner: boolean = outer.Object !== Object;

/**
 * Of the outer realm: what a registry of a vm context has pending when a thread ends aborts the process, since Node has
 * taken the context down by then.
 */
export const Finalizers: typeof FinalizationRegistry = outer.FinalizationRegistry;
