/**
 * The byte format of a header: tags, flags and tables that the writer and the reader share.
 * `docs/design/values.md` describes it byte by byte.
 */

/** First byte of every header. A reader refuses any other. */
export const VERSION = 2;

/** version (1), flags (1), offset of the tables (4, little endian; 0 when there are none). */
export const PREFIX_LENGTH = 6;

/** Set when code, or anything that is found by name (builtins, packages), is inside. Data never sets it. */
export const FLAG_CODE = 1;
/** Set when modules must be imported before the value can be built. */
export const FLAG_MODULES = 2;

/** Buffers of this many bytes and more travel beside the header. */
export const OUT_OF_BAND_MINIMUM = 1024;

/** So do the units of strings of this many bytes and more: beyond what stays inside messages. Measured, see the design. */
export const LONG_TEXT = 256 * 1024;

/** What a value starts with. Bytes from {@link SMALL_INT} on are the integers 0 to 127 themselves. */
export enum Tag {
  Undefined = 0x00,
  Null = 0x01,
  False = 0x02,
  True = 0x03,
  Int = 0x04,
  Double = 0x05,
  Latin1 = 0x06,
  Utf16 = 0x07,
  BigInt = 0x08,
  NegativeBigInt = 0x09,
  BackReference = 0x0a,
  NewShape = 0x0b,
  Shaped = 0x0c,
  Dictionary = 0x0d,
  Array = 0x0e,
  SparseArray = 0x0f,
  Doubles = 0x10,
  Map = 0x11,
  Set = 0x12,
  Date = 0x13,
  RegExp = 0x14,
  Error = 0x15,
  Boxed = 0x16,
  Url = 0x17,
  UrlSearchParams = 0x18,
  Buffer = 0x19,
  View = 0x1a,
  WellKnownSymbol = 0x1b,
  RegisteredSymbol = 0x1c,
  UniqueSymbol = 0x1d,
  Handle = 0x1e,
  /** A value, then own properties and a state of extensibility that its own record does not hold. */
  Extras = 0x1f,
  /** A prototype, then the record of an object that has it. */
  Instance = 0x20,
  /** As Instance, made through the class so that it owns the class's private names. */
  PrivateInstance = 0x21,
  /** Rebuilt by a user's `deserialize`. */
  Custom = 0x22,
  /** Of a class of this package. */
  Own = 0x23,
  /** A vector of Apache Arrow, made by its class from its data. */
  ArrowVector = 0x24,
  /** A string whose units are a region of a buffer. */
  LongLatin1 = 0x25,
  LongUtf16 = 0x26,

  Function = 0x30,
  Class = 0x31,
  Bound = 0x32,
  Builtin = 0x33,
  Import = 0x34,
  Require = 0x35,
  PrototypeOf = 0x36,
  Member = 0x37,
  Self = 0x38,
}

/** The byte of the integer 0; 0x80 | n stands for n up to 127. */
export const SMALL_INT = 0x80;

/** The kinds of views, in the order of their codes. Append only. */
export const VIEW_NAMES = [
  'DataView',
  'Int8Array',
  'Uint8Array',
  'Uint8ClampedArray',
  'Int16Array',
  'Uint16Array',
  'Int32Array',
  'Uint32Array',
  'Float32Array',
  'Float64Array',
  'BigInt64Array',
  'BigUint64Array',
  'Buffer',
  'Float16Array',
] as const;

/** Bytes per element of each kind of view. */
export const VIEW_ELEMENT_SIZES: readonly number[] = [1, 1, 1, 1, 2, 2, 4, 4, 4, 8, 8, 8, 1, 2];

export const DATA_VIEW_KIND = 0;
export const BUFFER_KIND = 12;

/** Flags of an entry in the table of buffers. */
export const BUFFER_INLINE = 1;
export const BUFFER_SHARED = 2;
export const BUFFER_RESIZABLE = 4;

/** Flags of a property that is written with its attributes. */
export const PROPERTY_ENUMERABLE = 1;
export const PROPERTY_CONFIGURABLE = 2;
export const PROPERTY_WRITABLE = 4;
export const PROPERTY_GETTER = 8;
export const PROPERTY_SETTER = 16;

/** States of extensibility. */
export const EXTENSIBLE = 0;
export const NOT_EXTENSIBLE = 1;
export const SEALED = 2;
export const FROZEN = 3;

/** The builtin error classes, in the order of their codes. Append only. */
export const ERROR_NAMES = [
  'Error',
  'EvalError',
  'RangeError',
  'ReferenceError',
  'SyntaxError',
  'TypeError',
  'URIError',
  'AggregateError',
] as const;

/** Code of an error of the package itself: its class name follows. */
export const NAMED_ERROR = 0xff;
/** Code of a DOMException: message and name follow. */
export const DOM_EXCEPTION = 0xfe;

/** What makes a custom value: a registered serializer that travels along, or its class's static method. */
export const CUSTOM_REGISTERED = 0;
export const CUSTOM_STATIC = 1;

/** The symbols that every realm shares, in the order of their codes. Append only. */
export const WELL_KNOWN_SYMBOLS = [
  'asyncIterator',
  'hasInstance',
  'isConcatSpreadable',
  'iterator',
  'match',
  'matchAll',
  'replace',
  'search',
  'species',
  'split',
  'toPrimitive',
  'toStringTag',
  'unscopables',
  'dispose',
  'asyncDispose',
] as const;

/** Looks a shared symbol up; undefined where this runtime lacks it. */
export function wellKnownSymbol(code: number): symbol | undefined {
  const name = WELL_KNOWN_SYMBOLS[code];
  return name === undefined ? undefined : (Symbol as unknown as Record<string, symbol | undefined>)[name];
}
