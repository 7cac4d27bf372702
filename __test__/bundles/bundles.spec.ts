/** Programs as compilers and bundlers make them: their functions run in workers, and stacks show lines of the sources. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { nodeOf } from '../support/tools.js';
import { each, makeProject, type Project, passes, showLines } from './support.js';

/** Imports with their extension, as Node wants them. */
function withExtensions({ dir }: Project, extension: string): void {
  const file = join(dir, 'src/main.ts');
  writeFileSync(file, readFileSync(file, 'utf8').replace("'./prices'", `'./prices${extension}'`));
}

function build(project: Project, script: string): void {
  writeFileSync(join(project.dir, 'build.cjs'), script);
  project.node('build.cjs');
}

for (const [name, type, options] of [
  ['an ES module', 'module', { format: 'esm', outfile: 'out/main.mjs', packages: 'external' }],
  ['CommonJS', 'commonjs', { format: 'cjs', outfile: 'out/main.cjs', packages: 'external' }],
  ['an ES module with its packages inside', 'module', { format: 'esm', outfile: 'out/main.mjs' }],
  [
    'CommonJS, minified, with names',
    'commonjs',
    { format: 'cjs', outfile: 'out/main.cjs', minify: true, keepNames: true },
  ],
] as const) {
  for (const sourcemap of ['inline', 'linked']) {
    each(`esbuild: ${name}, source map ${sourcemap}`, async (t) => {
      const project = makeProject(t, type);
      const all = {
        entryPoints: ['src/main.ts'],
        bundle: true,
        platform: 'node',
        target: 'node20',
        external: ['heliostat'],
        sourcemap,
        ...options,
      };
      build(project, `require('esbuild').buildSync(${JSON.stringify(all)});`);
      showLines(t, await passes(t, project, [options.outfile]));
    });
  }
}

for (const [mode, devtool] of [
  ['development', 'source-map'],
  ['development', 'inline-source-map'],
  ['development', 'eval-source-map'],
  ['production', 'source-map'],
]) {
  each(`webpack: a server bundle, ${mode}, ${devtool}`, async (t) => {
    const project = makeProject(t, 'commonjs');
    const options = {
      mode,
      devtool,
      target: 'node20',
      entry: './src/main.ts',
      output: { path: join(project.dir, 'out'), filename: 'main.cjs' },
      externals: { heliostat: 'commonjs heliostat' },
      resolve: { extensions: ['.ts', '.js'] },
    };
    const rule = "{ test: /\\.ts$/, loader: 'ts-loader', options: { transpileOnly: true } }";
    const config = { target: 'ES2022', module: 'ESNext', moduleResolution: 'bundler', sourceMap: true, strict: false };
    writeFileSync(join(project.dir, 'tsconfig.json'), JSON.stringify({ compilerOptions: config }));
    build(
      project,
      `require('webpack')({ ...${JSON.stringify(options)}, module: { rules: [${rule}] } }, (error, stats) => {
        if (error || stats.hasErrors()) throw error ?? new Error(stats.toString());
      });`,
    );
    showLines(t, await passes(t, project, ['out/main.cjs']));
  });
}

for (const [name, type, module, sourceMaps] of [
  ['ES modules', 'module', 'es6', 'inline'],
  ['CommonJS', 'commonjs', 'commonjs', 'inline'],
  ['CommonJS, maps in files', 'commonjs', 'commonjs', true],
] as const) {
  each(`swc: ${name}`, async (t) => {
    const project = makeProject(t, type);
    if (type === 'module') withExtensions(project, '.js');
    const options = {
      jsc: { parser: { syntax: 'typescript' }, target: 'es2022' },
      module: { type: module },
      sourceMaps,
    };
    build(
      project,
      `const { transformFileSync } = require('@swc/core');
      const { mkdirSync, writeFileSync } = require('node:fs');
      mkdirSync('out');
      for (const name of ['main', 'prices']) {
        const { code, map } = transformFileSync(\`src/\${name}.ts\`, ${JSON.stringify(options)});
        if (map) writeFileSync(\`out/\${name}.js.map\`, map);
        writeFileSync(\`out/\${name}.js\`, map ? \`\${code}\\n//# sourceMappingURL=\${name}.js.map\\n\` : code);
      }`,
    );
    showLines(t, await passes(t, project, ['out/main.js']));
  });
}

for (const [name, type, module] of [
  ['ES modules', 'module', 'ES2022'],
  ['CommonJS', 'commonjs', 'CommonJS'],
] as const) {
  each(`tsc: ${name}`, async (t) => {
    const project = makeProject(t, type);
    if (type === 'module') withExtensions(project, '.js');
    const options = `--outDir out --sourceMap --esModuleInterop --target ES2022 --module ${module} --types node`;
    const resolution = `--moduleResolution ${type === 'module' ? 'bundler' : 'node10'} --skipLibCheck src/main.ts`;
    project.node('node_modules/typescript/bin/tsc', ...`${options} ${resolution}`.split(' '));
    showLines(t, await passes(t, project, ['out/main.js'], { snapshots: type === 'commonjs' }));
  });
}

each('ts-node', async (t) => {
  const project = makeProject(t, 'commonjs');
  const config = { target: 'ES2022', module: 'CommonJS', esModuleInterop: true };
  writeFileSync(join(project.dir, 'tsconfig.json'), JSON.stringify({ compilerOptions: config }));
  showLines(t, await passes(t, project, ['-r', 'ts-node/register/transpile-only', 'src/main.ts'], { snapshots: true }));
});

for (const type of ['module', 'commonjs'] as const) {
  each(`tsx: ${type}`, async (t) => {
    const project = makeProject(t, type);
    showLines(t, await passes(t, project, ['--import', 'tsx', 'src/main.ts']));
  });
}

for (const major of [22, 24, 26]) {
  each(`Node ${major} strips types`, async (t) => {
    const project = makeProject(t, 'module');
    withExtensions(project, '.ts');
    showLines(t, await passes(t, project, ['src/main.ts'], { node: nodeOf(major) }));
  });
}
