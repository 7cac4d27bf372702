/**
 * Values and functions to bytes and back. The runtime sets its {@link Hooks} once; everything else is stateless but
 * for registered serializers and the identities of classes.
 */

export type { Encoded } from './codec.cjs';
export { decode, encode, inspectSerializable, listScripts, prepare, warmUp, warnOfLarge } from './codec.cjs';
export type { Hooks } from './hooks.cjs';
export { setHooks } from './hooks.cjs';
export type { DecodeSource } from './reader.cjs';
export type { Finding } from './refusal.cjs';
export type { Serializer } from './serializers.cjs';
export { deregisterSerializer, registerSerializer } from './serializers.cjs';
