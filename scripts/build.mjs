// `npm run build`: sets up what is missing, and runs nothing.
import { main } from './process.mjs';
import { setUp } from './setup.mjs';

await main(setUp);
