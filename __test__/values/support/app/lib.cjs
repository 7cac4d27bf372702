// biome-ignore-all lint/style/useNodejsImportProtocol: programs write both
const os = require('os');
const collect = require('plain-cjs');
const { sum } = require('plain-cjs');
const { join } = require('path');
const dual = require('dual');

const base = 40;
let visits = 0;

function viaRequire(n) {
  return [base + n, collect(1, n), sum([1, n]), typeof os.cpus, join('a', 'b'), dual.describe(n)];
}
const lazily = (n) => require('path').basename(`/x/${n}`);
const whereIsIt = () => [typeof __filename, typeof __dirname, typeof module];
function globalOrNot() {
  return this === globalThis;
}
function sloppyThis() {
  return globalOrNot();
}
function visit() {
  return ++visits;
}
function visited() {
  return visits;
}
module.exports = { viaRequire, lazily, whereIsIt, sloppyThis, visit, visited };
