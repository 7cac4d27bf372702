/** Readers of the builtin kinds, instances, unusual properties and custom values. */
import { types } from 'node:util';
import {
  CUSTOM_REGISTERED,
  DOM_EXCEPTION,
  ERROR_NAMES,
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
} from './format.cjs';
import { hooks } from './hooks.cjs';
import { ownClass } from './own-classes.cjs';
import type { Reader } from './reader.cjs';
import { defineReaders } from './reader.cjs';
import { MalformedHeader, Refusal } from './refusal.cjs';
import type { AnySerializer } from './serializers.cjs';
import { DESERIALIZE, learnSerializer } from './serializers.cjs';

const { set: setEntry } = Map.prototype;
const { add: addItem } = Set.prototype;

defineReaders({
  [Tag.Map](reader) {
    const length = reader.count(2);
    const map = reader.adopt(new Map<unknown, unknown>());
    for (let i = 0; i < length; i++) {
      const key = reader.value();
      setEntry.call(map, key, reader.value());
    }
    return map;
  },
  [Tag.Set](reader) {
    const length = reader.count();
    const set = reader.adopt(new Set<unknown>());
    for (let i = 0; i < length; i++) addItem.call(set, reader.value());
    return set;
  },
  [Tag.Date]: (reader) => reader.adopt(new Date(reader.double())),
  [Tag.RegExp](reader) {
    const source = reader.text();
    const regExp = reader.adopt(new RegExp(source, reader.text()));
    regExp.lastIndex = reader.value() as number;
    return regExp;
  },
  [Tag.Error]: readError,
  [Tag.Boxed](reader) {
    // The identity comes before that of a boxed symbol.
    const id = reader.announce();
    const value = reader.value();
    if (value === undefined || value === null || typeof value === 'object') throw new MalformedHeader('a box is empty');
    return reader.resolve(id, Object(value));
  },
  [Tag.Url]: (reader) => reader.adopt(new URL(reader.text())),
  [Tag.UrlSearchParams]: (reader) => reader.adopt(new URLSearchParams(reader.text())),
  [Tag.Extras](reader) {
    const object = reader.object();
    readProperties(reader, object);
    setExtensibility(object, reader.byte());
    return object;
  },
  [Tag.Instance](reader) {
    const prototype = reader.value();
    if (typeof prototype !== 'object' && typeof prototype !== 'function')
      throw new MalformedHeader('a prototype is odd');
    return reader.instance(prototype);
  },
  [Tag.PrivateInstance]: (reader) => reader.functions.privateInstance(),
  [Tag.Custom]: readCustom,
  [Tag.Own]: readOwn,
});

/** Reads properties with their attributes onto an object. */
export function readProperties(reader: Reader, object: object): void {
  for (let left = reader.count(3); left > 0; left--) {
    const flags = reader.byte();
    const key = reader.value();
    if (typeof key !== 'string' && typeof key !== 'symbol') throw new MalformedHeader('a key is odd');
    const shared = {
      enumerable: (flags & PROPERTY_ENUMERABLE) !== 0,
      configurable: (flags & PROPERTY_CONFIGURABLE) !== 0,
    };
    if ((flags & (PROPERTY_GETTER | PROPERTY_SETTER)) !== 0) {
      const get = (flags & PROPERTY_GETTER) !== 0 ? reader.value() : undefined;
      const set = (flags & PROPERTY_SETTER) !== 0 ? reader.value() : undefined;
      Object.defineProperty(object, key, { ...shared, get, set } as PropertyDescriptor);
    } else {
      const writable = (flags & PROPERTY_WRITABLE) !== 0;
      reader.slot((value) => Object.defineProperty(object, key, { ...shared, writable, value }));
    }
  }
}

/** Applies a state of extensibility. */
export function setExtensibility(object: object, state: number): void {
  if (state === FROZEN) Object.freeze(object);
  else if (state === SEALED) Object.seal(object);
  else if (state === NOT_EXTENSIBLE) Object.preventExtensions(object);
}

function readError(reader: Reader): Error {
  const error = reader.adopt(makeError(reader));
  const stack = reader.value();
  if (typeof stack === 'string') {
    Object.defineProperty(error, 'stack', { value: stack, writable: true, configurable: true, enumerable: false });
  } else {
    Reflect.deleteProperty(error, 'stack');
  }
  readProperties(reader, error);
  return error;
}

function makeError(reader: Reader): Error {
  const code = reader.byte();
  if (code === DOM_EXCEPTION) {
    const message = reader.text();
    return new DOMException(message, reader.text());
  }
  // The stack of this place is of no use to anyone and dear to collect.
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = 0;
  try {
    if (code === NAMED_ERROR) {
      const name = reader.text();
      const error = new Error();
      const known = hooks().errorClasses();
      const type = Object.hasOwn(known, name) ? known[name] : undefined;
      if (type !== undefined) Object.setPrototypeOf(error, type.prototype as object);
      return error;
    }
    const name = ERROR_NAMES[code];
    if (name === undefined) throw new MalformedHeader('an error class is unknown');
    const error = name === 'AggregateError' ? new AggregateError([]) : new globalThis[name]();
    Reflect.deleteProperty(error, 'errors');
    return error;
  } finally {
    Error.stackTraceLimit = stackTraceLimit;
  }
}

function readOwn(reader: Reader): object {
  const id = reader.announce();
  const name = reader.text();
  const type = ownClass(name) ?? hooks().loadOwnClass?.(name);
  if (type === undefined) throw new MalformedHeader('a class of the package is unknown');
  return reader.resolve(id, type.revive(reader.value()));
}

function readCustom(reader: Reader): unknown {
  // A header without code cannot get a user's function called.
  const { functions } = reader;
  const id = reader.announce();
  const mode = reader.byte();
  const type = reader.object() as new (...args: any[]) => unknown;
  const serializer = mode === CUSTOM_REGISTERED ? (reader.object() as AnySerializer) : undefined;
  const data = reader.value();
  functions.flush();
  const chosen = serializer === undefined ? undefined : learnSerializer(type, serializer);
  try {
    const made =
      chosen === undefined
        ? (type as unknown as { [DESERIALIZE](data: unknown): unknown })[DESERIALIZE](data)
        : chosen.deserialize(data);
    return reader.resolve(id, made);
  } catch (error) {
    const message = types.isNativeError(error) ? error.message : String(error);
    throw new Refusal(`the deserializer of ${type.name || 'a class'} threw: ${message}`, '', { cause: error });
  }
}
