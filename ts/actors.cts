/** Actors: the names exist, the feature comes with a later version. */
import { notYet } from './errors.cjs';
import type { ActorHandle, AnyActorHandle } from './types.cjs';

/** The handle of a named actor. */
export function getActor<I>(
  _name: string,
  _options?: { namespace?: string },
): Promise<ActorHandle<I extends abstract new (...args: any[]) => infer O ? O : I>> {
  return Promise.reject(notYet('getActor()'));
}

/** Ends an actor. */
export function kill(_actor: AnyActorHandle, _options?: { noRestart?: boolean }): Promise<void> {
  return Promise.reject(notYet('kill()'));
}

/** Inside an actor: leave for good. */
export function exitActor(): never {
  throw notYet('exitActor()');
}
