/** Numbers of the function records that writer and reader share. */

/** How a captured variable is given. */
export enum VariableKind {
  Value,
  /** A cell of this message, by its number. */
  Cell,
  NewCell,
  /** As NewCell, kept by the worker for its module. */
  ModuleCell,
  /** As Value, kept by the worker for its module. */
  ModuleValue,
}

/** What follows about a function's `prototype`. */
export enum PrototypeKind {
  Untouched,
  Extended,
  Replaced,
}

/** Flags of a code entry. */
export const CODE_STRICT = 1;
export const CODE_CLASS = 2;
export const CODE_HOME = 4;
export const CODE_META = 8;
export const CODE_IMPORTS = 16;
export const CODE_OUTER_ARGUMENTS = 32;
export const CODE_SUPERCLASS = 64;

/** Flags of a code entry's variable. */
export const VARIABLE_CELL = 1;
export const VARIABLE_EAGER = 2;

/** Which function of a property a member is. */
export const MEMBER_VALUE = 0;
export const MEMBER_GET = 1;
export const MEMBER_SET = 2;
