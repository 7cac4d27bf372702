/** The entry for `import`: the same classes and state as `require` gives. */
export * from './index.cjs';
