// A fresh process: from init() to the first result of a closure that captures one constant.
import { init, remote, shutdown } from 'heliostat';

const constant = 41;

const started = performance.now();
await init();
const initialised = performance.now() - started;
const result = await remote(() => constant + 1)
  .remote()
  .get();
const milliseconds = performance.now() - started;
await shutdown();
process.send({ result, initialised, milliseconds });
process.disconnect();
