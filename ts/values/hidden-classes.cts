/**
 * V8's hidden classes. Two objects of one hidden class have the same keys in the same order with the same attributes, the
 * same prototype, and both can be extended: when one was looked at, the other need not be. It is the engine's own answer
 * to a question that the language answers property by property, ten times as slowly.
 *
 * The two functions of V8 behind it have no name in the language. They are compiled once, in a moment in which the
 * engine's parser knows their names; where an engine refuses, nothing is alike, and everything is looked at.
 */
import { types } from 'node:util';
import { setFlagsFromString } from 'node:v8';
import { Script } from 'node:vm';
import { isNativeText } from './kinds.cjs';

interface Engine {
  /** Whether two objects have the same hidden class. Says nothing about elements of objects that are not arrays. */
  same(a: object, b: object): boolean;
  /** Whether the hidden class of an object tells its properties: else they, or its elements, are in a table of their own. */
  describes(a: object): boolean;
}

const SOURCE = `({
  same: (function (a, b) { return %HaveSameMap(a, b); }),
  describes: (function (a) { return %HasFastProperties(a) && !%HasDictionaryElements(a); }),
})`;

let engine: Engine | undefined;

function compile(): Engine | undefined {
  try {
    setFlagsFromString('--allow-natives-syntax');
    try {
      const made = new Script(SOURCE, { filename: 'hidden-classes' }).runInThisContext() as Engine;
      // Called, and so compiled, while the names are known.
      const works = made.same([1], [2]) && !made.same([1], {}) && made.describes({ a: 1 });
      return works && !made.same({ a: 1 }, { b: 1 }) ? made : undefined;
    } finally {
      setFlagsFromString('--no-allow-natives-syntax');
    }
  } catch {
    return undefined;
  }
}

/** Says whether hidden classes are asked for; tests compare both ways. */
export function useHiddenClasses(wanted: boolean): boolean {
  engine = wanted ? compile() : undefined;
  return engine !== undefined;
}

useHiddenClasses(true);

/** Whether `b` is known to be like `a`, an object that {@link isModel} took. */
export function isAlike(a: object, b: object): boolean {
  if (engine === undefined) return false;
  try {
    return engine.same(a, b);
  } catch (error) {
    return isForgotten(error) && useHiddenClasses(true) && isAlike(a, b);
  }
}

/** Whether others can be compared with an object. */
export function isModel(object: object): boolean {
  if (engine === undefined) return false;
  try {
    return engine.describes(object);
  } catch (error) {
    return isForgotten(error) && useHiddenClasses(true) && isModel(object);
  }
}

/** The engine forgets code that nobody called for long, and cannot compile this again by itself. */
function isForgotten(error: unknown): boolean {
  if (types.isNativeError(error) && error.name === 'SyntaxError') return true;
  // The stack is used up, which is the caller's to hear.
  throw error;
}

/** One array of each kind that V8 tells apart by what the elements are. */
const ARRAYS: readonly (readonly unknown[])[] = [
  [{}],
  [1],
  [1.5],
  holey<unknown>({}),
  holey<unknown>(1),
  holey<unknown>(1.5),
];

function holey<T>(element: T): T[] {
  const array = new Array<T>(2);
  array[1] = element;
  return array;
}

const [OBJECTS, INTEGERS, NUMBERS] = ARRAYS as [unknown[], unknown[], unknown[]];

/** Whether an array is known to have nothing but elements, all of them ordinary properties. */
export function isKnownArray(array: readonly unknown[]): boolean {
  return (
    isAlike(OBJECTS, array) ||
    isAlike(INTEGERS, array) ||
    isAlike(NUMBERS, array) ||
    isAlike(ARRAYS[3] as object, array) ||
    isAlike(ARRAYS[4] as object, array) ||
    isAlike(ARRAYS[5] as object, array)
  );
}

/** Views with nothing of their own, by their prototype: made when the first with a prototype is met. */
const views = new WeakMap<object, readonly ArrayBufferView[]>();

/** Whether a view is known to have no properties beside its elements. */
export function isKnownView(view: ArrayBufferView): boolean {
  const prototype = Object.getPrototypeOf(view) as object | null;
  if (prototype === null || engine === undefined) return false;
  let models = views.get(prototype);
  if (models === undefined) {
    models = viewsOf(prototype);
    views.set(prototype, models);
  }
  for (const model of models) if (isAlike(model, view)) return true;
  return false;
}

type Resizable = new (length: number, options: { maxByteLength: number }) => ArrayBuffer;
type ViewClass = new (buffer: ArrayBuffer) => ArrayBufferView;

function viewsOf(prototype: object): ArrayBufferView[] {
  if (prototype === Buffer.prototype) {
    return [Buffer.from(new ArrayBuffer(8)), Object.setPrototypeOf(new Uint8Array(8), prototype) as Buffer];
  }
  // The runtime's own class makes the view, as one of the program's class, whose code does not run.
  let at: object | null = prototype;
  while (at !== null && !isRuntimes(classOf(at))) at = Object.getPrototypeOf(at) as object | null;
  const type = classOf(prototype);
  if (at === null || type === undefined) return [];
  const base = classOf(at) as unknown as ViewClass;
  return [new ArrayBuffer(8), new (ArrayBuffer as unknown as Resizable)(8, { maxByteLength: 16 })].flatMap((buffer) => {
    try {
      const made = Reflect.construct(base, [buffer], type) as ArrayBufferView;
      return ArrayBuffer.isView(made) && Object.getPrototypeOf(made) === prototype ? [made] : [];
    } catch {
      return [];
    }
  });
}

function classOf(prototype: object): CallableFunction | undefined {
  const type: unknown = Object.getOwnPropertyDescriptor(prototype, 'constructor')?.value;
  return typeof type === 'function' && type.prototype === prototype ? type : undefined;
}

function isRuntimes(type: CallableFunction | undefined): boolean {
  return type !== undefined && isNativeText(type);
}
