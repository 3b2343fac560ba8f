// Takes comments and spaces out of all code in dist, which is half of what a user downloads. Names stay, so that the stack of an
// error can be read without the source maps, which are not in the package.
import { readdir } from 'node:fs/promises';
import { build } from 'esbuild';

const files = (await readdir('dist', { recursive: true })).filter((name) => name.endsWith('.js'));
await build({
  entryPoints: files.map((name) => `dist/${name}`),
  outdir: 'dist',
  outbase: 'dist',
  allowOverwrite: true,
  platform: 'node',
  target: 'node20',
  format: 'esm',
  sourcemap: true,
  minifyWhitespace: true,
  minifySyntax: true,
});
