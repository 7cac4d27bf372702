/** The addon. Everything else of the package speaks to it through this name. */
import * as native from '#native';

export { native };
