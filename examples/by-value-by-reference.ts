/**
 * How arguments reach a task. A value arrives as a copy. A reference that is an argument itself arrives as the value behind it. A
 * reference inside another value stays a reference: the task decides whether to get it.
 */
import { init, put, remote, shutdown } from 'heliostat';

const echo = remote(function echo<T>(x: T): T {
  console.log('current value of argument x:', x);
  return x;
});

await init();

const x = [0, 1, 2, 3, 4];
const xRef = put(x);
console.log(`x is stored as ${xRef}`);

console.log('by value: ', await echo.remote(x).get());
console.log('by reference, at the top level: ', await echo.remote(xRef).get());
console.log('inside an object: ', await echo.remote({ obj: xRef }).get());
console.log('inside an array: ', await echo.remote([xRef]).get());

await shutdown();
