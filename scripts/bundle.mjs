// Makes one file of the command and what it loads at every start, and one of each worker thread: a hundred small
// modules take longer to find and load than a sparse disk takes to copy. What is loaded on demand stays apart, and
// so does the library.
import { chmod, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { build } from 'esbuild';

const { dependencies, optionalDependencies } = JSON.parse(await readFile('package.json', 'utf8'));

/** Loaded at every start, and so small that they are taken in. */
const TAKEN_IN = ['commander', 'fastest-levenshtein', 'picocolors', 'pretty-bytes'];

// Their names hold digests: what an earlier build left would stay for ever.
await rm('dist/parts', { recursive: true, force: true });

// Not those in `dist`, where an earlier build may have left what there is no source of any more.
const files = await readdir('src', { recursive: true });
const workers = files
  .filter((name) => name.endsWith('worker.ts'))
  .map((name) => name.replace(/ts$/, 'js'));

await build({
  entryPoints: ['cli/main.js', ...workers].map((name) => join('dist', name)),
  outdir: 'dist',
  outbase: 'dist',
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
