// While the package is packed: takes comments and spaces out of all code in dist, which is a third of what a user downloads.
// Names stay, so that the stack of an error can be read without the source maps, which are not in the package.
import { readdir } from 'node:fs/promises';
import { build } from 'esbuild';

async function shrink() {
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
}

// `prepare` also runs after an installation in a checkout, where people read and test what is built.
if (['pack', 'publish'].includes(process.env.npm_command)) await shrink();
