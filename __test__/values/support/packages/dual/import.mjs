export const kind = 'import';
export const describe = (x) => `${kind}:${x}`;
