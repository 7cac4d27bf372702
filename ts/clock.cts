/** Timers as Node made them: test runners put others in their place, which stand still. */
import timers = require('node:timers');
import promises = require('node:timers/promises');

export const { setTimeout, clearTimeout, setImmediate } = timers;
export const { setTimeout: sleep } = promises;

/** Milliseconds since the process began. */
export const now: () => number = performance.now.bind(performance);
