// Makes few files of the command and of each worker thread: a hundred small modules take longer to find and load than a
// sparse disk takes to copy. What is loaded on demand stays apart, and so does the library.
import { chmod, readdir, readFile, rm } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { build } from 'esbuild';

const { dependencies, optionalDependencies } = JSON.parse(await readFile('package.json', 'utf8'));

/** Loaded at every start, and so small that they are taken in. */
const TAKEN_IN = ['commander', 'fastest-levenshtein', 'picocolors', 'pretty-bytes'];

// Not those in `dist`, where an earlier build may have left what there is no source of any more.
const files = (await readdir('src', { recursive: true }))
  .filter((name) => name.endsWith('.ts'))
  .map((name) => resolve('dist', name.replace(/ts$/, 'js')));

const command = resolve('dist/cli/main.js');

/** Whole paths of the modules that others load on demand; not of those that every command line loads first. */
const onDemand = new Set();
for (const file of files.filter((name) => name !== command)) {
  const text = await readFile(file, 'utf8');
  for (const [, path] of text.matchAll(/\bimport\('(\.[^']+)'\)/g)) {
    onDemand.add(resolve(dirname(file), path));
  }
}

/**
 * Has everything that is loaded on demand say that it needs `base` as well, which it mostly does. A bundler makes a file for
 * each combination of modules that share some code; like this, all that `base` loads is in one file, and not in twenty.
 */
function inOneFile(base) {
  return {
    name: 'in-one-file',
    setup({ onLoad }) {
      onLoad({ filter: /\.js$/ }, async ({ path }) => {
        if (!onDemand.has(path) || path === base) return undefined;
        return { contents: `import ${JSON.stringify(base)}; ${await readFile(path, 'utf8')}` };
      });
    },
  };
}

/** Bundles a program, and keeps in one file what `base` loads. */
async function bundle(program, base) {
  await build({
    entryPoints: [program],
    outdir: 'dist',
    outbase: 'dist',
    allowOverwrite: true,
    bundle: true,
    splitting: true,
    chunkNames: 'parts/[name]-[hash]',
    plugins: [inOneFile(base)],
    // The package says that no module does anything by being loaded, so these imports are there for the bundler alone.
    logOverride: { 'ignored-bare-import': 'silent' },
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
}

// Their names hold digests: what an earlier build left would stay for ever.
await rm('dist/parts', { recursive: true, force: true });

// Nearly every command uses most of what a copy loads.
await bundle(command, resolve('dist/cli/commands/copy/copy.js'));
await chmod(command, 0o755);

// A thread shares nothing with the command, and has its own copy of all modules.
for (const worker of files.filter((name) => name.endsWith('worker.js'))) {
  await bundle(worker, worker);
}
