exports.kind = 'require';
exports.describe = (x) => `${exports.kind}:${x}`;
