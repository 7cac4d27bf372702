/** The entry for `import`: the same class as `require` gives. */
export * from './tensor.cjs';
