/** The addon. Everything else of the package speaks to it through this name. */
import type * as Native from '#native' with { 'resolution-mode': 'import' };

export const native = require('#native') as typeof Native;
