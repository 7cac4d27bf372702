// The measured function, for pools that take a module's default export.
export default (value) => value;
