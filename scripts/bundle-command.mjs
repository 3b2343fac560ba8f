// Makes one file of the command and what it loads at every start: a hundred small modules take longer to find and
// load than a sparse disk takes to copy. What is loaded on demand stays apart, and so does the library.
import { chmod, readFile } from 'node:fs/promises';
import { build } from 'esbuild';

const { dependencies, optionalDependencies } = JSON.parse(await readFile('package.json', 'utf8'));

/** Loaded at every start, and so small that they are taken in. */
const TAKEN_IN = ['commander', 'picocolors', 'pretty-bytes'];

await build({
  entryPoints: ['dist/cli/main.js'],
  outdir: 'dist/cli',
  allowOverwrite: true,
  bundle: true,
  splitting: true,
  chunkNames: 'parts/[name]-[hash]',
  platform: 'node',
  target: 'node20',
  format: 'esm',
  sourcemap: true,
  external: Object.keys({ ...dependencies, ...optionalDependencies }).filter(
    (name) => !TAKEN_IN.includes(name),
  ),
  // Packages that are CommonJS load Node's modules with `require`.
  banner: {
    js: "import { createRequire } from 'node:module';\nconst require = createRequire(import.meta.url);",
  },
});
await chmod('dist/cli/main.js', 0o755);
