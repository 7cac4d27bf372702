/** Objects beyond plain ones and arrays: builtin kinds, instances, unusual properties, handles, custom values. */
import { types } from 'node:util';
import { type VectorParts, vectorParts } from './arrow.cjs';
import { hasNamedViewProperties, isIndex, unusualKeys } from './elements.cjs';
import {
  BUFFER_KIND,
  CUSTOM_REGISTERED,
  CUSTOM_STATIC,
  DATA_VIEW_KIND,
  DOM_EXCEPTION,
  ERROR_NAMES,
  EXTENSIBLE,
  FLAG_CODE,
  FROZEN,
  NAMED_ERROR,
  NOT_EXTENSIBLE,
  PROPERTY_CONFIGURABLE,
  PROPERTY_ENUMERABLE,
  PROPERTY_GETTER,
  PROPERTY_SETTER,
  PROPERTY_WRITABLE,
  SEALED,
  Tag,
  VIEW_NAMES,
} from './format.cjs';
import { hooks } from './hooks.cjs';
import { isExotic, isNativeText, isOfKind, Kind, kindOf, localOnly, ownPrototype, standardKind } from './kinds.cjs';
import { ownParts } from './own-classes.cjs';
import { Step } from './path.cjs';
import { Refusal } from './refusal.cjs';
import { DESERIALIZE, hasSerializers, registeredType, SERIALIZE } from './serializers.cjs';
import {
  flagsOf,
  givenKeys,
  hrefOf,
  lengthOf,
  messageOf,
  nameOf,
  rangeOf,
  sourceOf,
  typedArrayName,
} from './slots.cjs';
import type { Writer } from './writer.cjs';

/** Writes an object that the fast paths left. */
export function writeObject(out: Writer, value: object): void {
  if (!types.isProxy(value)) {
    const found = Object.getPrototypeOf(value) as object | null;
    if (found !== null && out.plainPrototypes.has(found) && !isExotic(value)) {
      writeDecorated(out, value, Kind.Plain, writeInstance);
      return;
    }
    const prototype = found === null ? null : ownPrototype(found);
    const kind = prototype === null ? undefined : standardKind(prototype);
    const isBuiltin = kind !== undefined && kind !== Kind.Plain && !hasSerializers() && isOfKind(value, kind);
    if (isBuiltin && isStandard(value, kind, prototype as object)) {
      writeDecorated(out, value, kind, writeKind);
      return;
    }
  }
  // From here on the program's code may run, and change what was looked at.
  out.forgetModels();
  if (hooks().isRef(value)) {
    out.handle(value);
    return;
  }
  if (types.isProxy(value)) throw new Refusal('is a Proxy', 'Send its target and wrap it on the other side');
  const refusal = hooks().refusal?.(value);
  if (refusal !== undefined) throw new Refusal(refusal.reason, refusal.hint);
  const draft = hooks().isDraft(value);
  if (draft !== undefined) {
    out.seals.push(value);
    out.register(value);
    writeView(out, draft);
    return;
  }
  const own = ownParts(value);
  if (own !== undefined) {
    writeOwn(out, value, own);
    return;
  }
  const vector = vectorParts(value);
  if (vector !== undefined) {
    writeVector(out, value, vector);
    return;
  }
  if (!writeCustom(out, value)) writeAny(out, value);
}

/** A vector of Apache Arrow. */
function writeVector(out: Writer, value: object, { type, data, isMemoized }: VectorParts): void {
  const id = out.register(value);
  out.incomplete.add(id);
  out.byte(Tag.ArrowVector);
  out.byte(isMemoized ? 1 : 0);
  out.path.depth++;
  out.path.at(Step.Label, 'class');
  out.value(type);
  out.path.at(Step.Property, 'data');
  out.value(data);
  out.path.depth--;
  out.flushFunctions();
  out.incomplete.delete(id);
}

/** An instance of a class of this package. */
function writeOwn(out: Writer, value: object, { name, parts }: { name: string; parts: unknown }): void {
  const id = out.register(value);
  out.incomplete.add(id);
  out.byte(Tag.Own);
  out.string(name, Tag.Latin1);
  out.path.depth++;
  out.path.at(Step.Label, 'parts');
  out.value(parts);
  out.path.depth--;
  out.incomplete.delete(id);
}

/** The prototype, or this realm's in the place of a builtin one of another realm. */
function prototypeOf(value: object): object | null {
  const prototype = Object.getPrototypeOf(value) as object | null;
  return prototype === null ? null : ownPrototype(prototype);
}

/** An object of whatever kind and prototype. */
function writeAny(out: Writer, value: object): void {
  const prototype = prototypeOf(value);
  const expected = prototype === null ? undefined : standardKind(prototype);
  const kind = expected !== undefined && isOfKind(value, expected) ? expected : kindOf(value);
  if (kind === Kind.Plain) {
    if (mayBeNamed(out, value, prototype) && out.functions.writeNamed(value)) return;
    const local = localOnly(value);
    if (local !== undefined) throw new Refusal(local.reason, local.hint);
    if (prototype !== null && prototype !== Object.prototype && out.functions.isUserPrototype(prototype)) {
      out.plainPrototypes.add(prototype);
    }
  }
  const isPlainKind = prototype !== null && isStandard(value, kind, prototype);
  writeDecorated(out, value, kind, isPlainKind ? writeKind : writeInstance);
}

/** Writes the record of an object, without the properties that follow it. */
type WriteRecord = (out: Writer, value: object, kind: Kind, extras: readonly (string | symbol)[]) => void;

/** A record, with what it does not hold of the object around it. */
function writeDecorated(out: Writer, value: object, kind: Kind, writeRecord: WriteRecord): void {
  const extensibility = extensibilityOf(value);
  const extras = extraKeys(value, kind, extensibility);
  if (extras.length === 0 && extensibility === EXTENSIBLE) {
    writeRecord(out, value, kind, extras);
    return;
  }
  out.byte(Tag.Extras);
  writeRecord(out, value, kind, extras);
  writeProperties(out, value, extras);
  out.byte(extensibility);
}

/** An object whose prototype is not that of its kind. */
function writeInstance(out: Writer, value: object, kind: Kind, extras: readonly (string | symbol)[]): void {
  const prototype = prototypeOf(value);
  const privates = prototype === null ? undefined : out.functions.checkPrototype(value, prototype);
  out.byte(privates === undefined ? Tag.Instance : Tag.PrivateInstance);
  out.path.depth++;
  out.path.at(Step.Label, 'prototype');
  if (prototype !== null) out.functions.writePrototype(prototype);
  else out.byte(Tag.Null);
  if (privates !== undefined) out.value(privates.maker);
  out.path.depth--;
  // The prototype may hold the instance: then its record stands there already.
  if (out.backReference(value)) return;
  writeKind(out, value, kind, extras);
  if (privates !== undefined) out.functions.writePrivateFields(value, privates);
}

/** Objects that other processes find by a name hold functions or accessors, or are namespaces of modules. */
function mayBeNamed(out: Writer, value: object, prototype: object | null): boolean {
  if (prototype === null) return types.isModuleNamespaceObject(value);
  if (prototype !== Object.prototype && out.functions.isUserPrototype(prototype))
    return Object.hasOwn(value, 'constructor');
  for (const key of Object.getOwnPropertyNames(value)) {
    const property = Object.getOwnPropertyDescriptor(value, key);
    if (property?.get !== undefined || typeof property?.value === 'function') return true;
  }
  return prototype !== Object.prototype || Object.hasOwn(value, Symbol.toStringTag);
}

/** Whether the record of the kind alone gives an object with this prototype. */
function isStandard(value: object, kind: Kind, prototype: object): boolean {
  if (standardKind(prototype) !== kind) {
    return kind === Kind.Error && packageErrorName(prototype) !== undefined;
  }
  switch (kind) {
    case Kind.View:
      return viewName(value as ArrayBufferView) === (prototype.constructor as { name?: string }).name;
    case Kind.Boxed:
      return Object.getPrototypeOf(Object(unboxed(value))) === prototype;
    case Kind.Buffer:
      return types.isSharedArrayBuffer(value) === (prototype === SharedArrayBuffer.prototype);
    case Kind.Error:
      return errorCode(prototype) !== undefined;
    default:
      return true;
  }
}

const ERROR_CODES = new Map<object, number>(ERROR_NAMES.map((name, code) => [globalThis[name].prototype, code]));

function errorCode(prototype: object): number | undefined {
  return ERROR_CODES.get(prototype);
}

function packageErrorName(prototype: object): string | undefined {
  const known = hooks().errorClasses();
  for (const name of Object.keys(known)) if (known[name]?.prototype === prototype) return name;
  return undefined;
}

function viewName(view: ArrayBufferView): string {
  if (Buffer.isBuffer(view)) return 'Buffer';
  return typedArrayName(view) ?? 'DataView';
}

/** The own keys that the record of the kind does not hold. */
function extraKeys(value: object, kind: Kind, extensibility: number): (string | symbol)[] {
  switch (kind) {
    case Kind.Plain: {
      const keys = Reflect.ownKeys(value);
      return keys.every((key) => typeof key === 'string' && hasOrdinary(value, key)) ? [] : keys;
    }
    case Kind.Array:
      return unusualKeys(value as unknown[], extensibility);
    case Kind.RegExp:
      return Reflect.ownKeys(value).filter((key) => key !== 'lastIndex');
    case Kind.Error:
    case Kind.DomException:
      return [];
    case Kind.View:
      if (!hasNamedViewProperties(value as ArrayBufferView)) {
        return Object.getOwnPropertySymbols(value);
      }
      return Reflect.ownKeys(value).filter((key) => typeof key === 'symbol' || !isIndex(key));
    case Kind.Boxed:
      return Reflect.ownKeys(value).filter(
        (key) => !(types.isStringObject(value) && (key === 'length' || (typeof key === 'string' && isIndex(key)))),
      );
    case Kind.Url:
    case Kind.UrlSearchParams:
      return givenKeys(value);
    default:
      return Reflect.ownKeys(value);
  }
}

function hasOrdinary(value: object, key: string): boolean {
  const property = Object.getOwnPropertyDescriptor(value, key);
  return property?.writable === true && property.enumerable === true && property.configurable === true;
}

function extensibilityOf(value: object): number {
  if (Object.isExtensible(value)) return EXTENSIBLE;
  if (ArrayBuffer.isView(value)) return NOT_EXTENSIBLE;
  // V8 calls an empty array that cannot grow frozen while its length can be written.
  const fixed = !Array.isArray(value) || Object.getOwnPropertyDescriptor(value, 'length')?.writable === false;
  return fixed && Object.isFrozen(value) ? FROZEN : Object.isSealed(value) ? SEALED : NOT_EXTENSIBLE;
}

/** Properties with their attributes. */
export function writeProperties(out: Writer, value: object, keys: readonly (string | symbol)[]): void {
  out.varint(keys.length);
  out.path.depth++;
  for (const key of keys) {
    const property = propertyOf(value, key) as PropertyDescriptor;
    out.path.at(Step.Property, key);
    out.byte(
      (property.enumerable ? PROPERTY_ENUMERABLE : 0) |
        (property.configurable ? PROPERTY_CONFIGURABLE : 0) |
        (property.writable ? PROPERTY_WRITABLE : 0) |
        (property.get ? PROPERTY_GETTER : 0) |
        (property.set ? PROPERTY_SETTER : 0),
    );
    out.value(key);
    if (property.get) held(out, value, property.get);
    if (property.set) held(out, value, property.set);
    if (!property.get && !property.set) held(out, value, property.value);
  }
  out.path.depth--;
}

function held(out: Writer, holder: object, value: unknown): void {
  if (typeof value === 'function') out.holder = holder;
  out.slot(value);
}

/** The record of a kind; takes the identity. A plain object's properties are all extras, or all ordinary. */
function writeKind(out: Writer, value: object, kind: Kind, extras: readonly (string | symbol)[]): void {
  switch (kind) {
    case Kind.Plain:
      out.ordinary(value as Record<string, unknown>, extras.length === 0 ? Object.getOwnPropertyNames(value) : []);
      return;
    case Kind.Array:
      if (extras.some((key) => typeof key === 'string' && isIndex(key)))
        out.sparse(value as unknown[], new Set(extras));
      else out.array(value as unknown[]);
      return;
    case Kind.Map:
      writeMap(out, value as Map<unknown, unknown>);
      return;
    case Kind.Set:
      writeSet(out, value as Set<unknown>);
      return;
    case Kind.Error:
    case Kind.DomException:
      out.register(value);
      writeError(out, value as Error, kind);
      return;
    case Kind.View:
      out.register(value);
      writeView(out, value as ArrayBufferView);
      return;
    default:
      out.register(value);
      writeLeaf(out, value, kind);
  }
}

/** Kinds that hold no other objects. */
function writeLeaf(out: Writer, value: object, kind: Kind): void {
  switch (kind) {
    case Kind.Date:
      out.byte(Tag.Date);
      out.double(Date.prototype.getTime.call(value));
      return;
    case Kind.RegExp: {
      out.byte(Tag.RegExp);
      out.string(sourceOf.call(value), Tag.Latin1);
      out.string(flagsOf(value as RegExp), Tag.Latin1);
      out.value((value as RegExp).lastIndex);
      return;
    }
    case Kind.Buffer:
      out.byte(Tag.Buffer);
      out.varint(out.buffers.add(value as ArrayBuffer, 0, lengthOf(value as ArrayBuffer), false));
      return;
    case Kind.Boxed:
      out.byte(Tag.Boxed);
      out.value(unboxed(value));
      return;
    case Kind.Url:
      out.byte(Tag.Url);
      out.string(hrefOf.call(value), Tag.Latin1);
      return;
    case Kind.UrlSearchParams:
      out.byte(Tag.UrlSearchParams);
      out.string(URLSearchParams.prototype.toString.call(value), Tag.Latin1);
      return;
    default:
      throw new Refusal(`is of kind ${Kind[kind]}, which has no record`);
  }
}

function unboxed(value: object): unknown {
  if (types.isNumberObject(value)) return Number.prototype.valueOf.call(value);
  if (types.isStringObject(value)) return String.prototype.valueOf.call(value);
  if (types.isBooleanObject(value)) return Boolean.prototype.valueOf.call(value);
  if (types.isBigIntObject(value)) return BigInt.prototype.valueOf.call(value);
  return Symbol.prototype.valueOf.call(value);
}

function writeMap(out: Writer, map: Map<unknown, unknown>): void {
  out.register(map);
  out.byte(Tag.Map);
  // A getter or a serializer that runs below may change the map: the entries are those of this moment.
  const keys = [...Map.prototype.keys.call(map)];
  const values = [...Map.prototype.values.call(map)];
  out.varint(keys.length);
  out.path.depth++;
  for (let i = 0; i < keys.length; i++) {
    const key: unknown = keys[i];
    if (!out.scalar(key)) {
      out.path.at(Step.MapKey, undefined, i);
      out.value(key);
    }
    const held: unknown = values[i];
    if (!out.scalar(held)) {
      out.path.at(Step.MapValue, key, i);
      out.likeLast(held);
    }
  }
  out.path.depth--;
}

function writeSet(out: Writer, set: Set<unknown>): void {
  out.register(set);
  out.byte(Tag.Set);
  const items = [...Set.prototype.values.call(set)];
  out.varint(items.length);
  out.path.depth++;
  for (let i = 0; i < items.length; i++) {
    const item: unknown = items[i];
    if (out.scalar(item)) continue;
    out.path.at(Step.SetItem, undefined, i);
    out.likeLast(item);
  }
  out.path.depth--;
}

function writeError(out: Writer, error: Error, kind: Kind): void {
  // The text of its stack may be the program's making.
  out.forgetModels();
  out.byte(Tag.Error);
  const prototype = prototypeOf(error);
  const packageName = prototype === null ? undefined : packageErrorName(prototype);
  if (kind === Kind.DomException) {
    out.byte(DOM_EXCEPTION);
    out.string(messageOf.call(error), Tag.Latin1);
    out.string(nameOf.call(error), Tag.Latin1);
  } else if (packageName !== undefined) {
    out.byte(NAMED_ERROR);
    out.string(packageName, Tag.Latin1);
  } else {
    out.byte((prototype === null ? undefined : errorCode(prototype)) ?? 0);
  }
  const stack = stackOf(error);
  out.value(stack);
  writeProperties(
    out,
    error,
    stack === undefined ? givenKeys(error) : givenKeys(error).filter((key) => key !== 'stack'),
  );
}

/** The stack of an error as text, when nobody made another property of it. */
function stackOf(error: Error): string | undefined {
  const property = propertyOf(error, 'stack');
  const isUsual = property?.writable === true && property.configurable === true && property.enumerable === false;
  return isUsual && typeof property.value === 'string' ? property.value : undefined;
}

/** An own property. The stack of an error is data on Node 20 and the runtime's accessor later: data here. */
function propertyOf(value: object, key: string | symbol): PropertyDescriptor | undefined {
  const property = Object.getOwnPropertyDescriptor(value, key);
  if (key !== 'stack' || property?.get === undefined || !isNativeText(property.get)) return property;
  if (!types.isNativeError(value) && !(value instanceof DOMException)) return property;
  const { enumerable, configurable } = property as { enumerable: boolean; configurable: boolean };
  return { value: value.stack, writable: true, enumerable, configurable };
}

function writeView(out: Writer, view: ArrayBufferView): void {
  const name = viewName(view);
  const kind = name === 'DataView' ? DATA_VIEW_KIND : (VIEW_NAMES as readonly string[]).indexOf(name);
  if (kind < 0) throw new Refusal(`is a ${name}, which this version does not know`);
  const { buffer, byteOffset, byteLength } = rangeOf(view);
  const region = out.buffers.add(buffer, byteOffset, byteLength, kind === BUFFER_KIND);
  out.byte(Tag.View);
  out.byte(kind);
  out.varint(region);
}

/** Instances of classes with a serializer; returns whether `value` was one. */
function writeCustom(out: Writer, value: object): boolean {
  const prototype = prototypeOf(value);
  if (prototype === Object.prototype || prototype === null) return false;
  const found = registeredType(prototype);
  const method = found === undefined ? (value as { [SERIALIZE]?: unknown })[SERIALIZE] : undefined;
  if (found === undefined && typeof method !== 'function') return false;
  if (found === undefined && standardKind(prototype) !== undefined) return false;

  let data: unknown;
  const maker = value.constructor as { [DESERIALIZE]?: unknown };
  if (found !== undefined) {
    data = serialized(() => found.serializer.serialize(value));
  } else {
    if (typeof maker?.[DESERIALIZE] !== 'function') {
      throw new Refusal(
        'has the method Symbol.for("heliostat.serialize"), but its class has no static Symbol.for("heliostat.deserialize")',
        'Add it: static [Symbol.for("heliostat.deserialize")](data)',
      );
    }
    data = serialized(() => (method as (this: object) => unknown).call(value));
  }
  if (data === value) throw new Refusal('its serializer returns the value itself', 'Return its parts');
  out.flags |= FLAG_CODE;
  const id = out.register(value);
  out.incomplete.add(id);
  out.byte(Tag.Custom);
  out.path.depth++;
  if (found !== undefined) {
    out.byte(CUSTOM_REGISTERED);
    out.path.at(Step.Label, 'class');
    out.value(found.type);
    out.path.at(Step.Label, 'serializer');
    out.value(found.serializer);
  } else {
    out.byte(CUSTOM_STATIC);
    out.path.at(Step.Label, 'class');
    out.value(maker);
  }
  out.path.at(Step.Label, 'serialized');
  out.value(data);
  out.path.depth--;
  out.flushFunctions();
  out.incomplete.delete(id);
  return true;
}

function serialized(serialize: () => unknown): unknown {
  try {
    return serialize();
  } catch (error) {
    if (error instanceof Refusal) throw error;
    throw new Refusal(`its serializer threw: ${types.isNativeError(error) ? error.message : String(error)}`, '', {
      cause: error,
    });
  }
}
