/**
 * How arguments reach a task. A value arrives as a copy. A reference that is an argument itself arrives as the value behind it. A
 * reference inside another value stays a reference: the task decides whether to get it.
 */
import { inspect } from 'node:util';
import { init, put, remote, shutdown } from 'heliostat';

const show = (value: unknown) => inspect(value, { breakLength: Number.POSITIVE_INFINITY });

const echo = remote(function echo<T>(x: T): T {
  console.log(`current value of argument x: ${show(x)}`);
  return x;
});

await init();

const x = [0, 1, 2, 3, 4];
const xRef = put(x);
console.log(`x is stored as ${xRef}`);

console.log(`by value: ${show(await echo.remote(x).get())}`);
console.log(`by reference, at the top level: ${show(await echo.remote(xRef).get())}`);
console.log(`inside an object: ${show(await echo.remote({ obj: xRef }).get())}`);
console.log(`inside an array: ${show(await echo.remote([xRef]).get())}`);

await shutdown();
