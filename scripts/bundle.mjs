// Makes few files of the command, of each worker thread and of the library: a hundred small modules take longer to find and
// load than a sparse disk takes to copy. What is loaded on demand stays apart.
import { chmod, copyFile, mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { build } from 'esbuild';

const { dependencies, optionalDependencies, peerDependencies, exports } = JSON.parse(
  await readFile('package.json', 'utf8'),
);

/** Loaded at every start, and so small that they are taken in. */
const TAKEN_IN = ['commander', 'fastest-levenshtein', 'picocolors', 'pretty-bytes'];

/** What a browser loads, and no other module. */
const PAGE = 'daemon/watch/page';

// Not those in `dist`, where an earlier build may have left what there is no source of any more.
const files = (await readdir('src', { recursive: true }))
  .filter((name) => name.endsWith('.ts') && !name.startsWith(PAGE))
  .map((name) => resolve('dist', name.replace(/ts$/, 'js')));

const command = resolve('dist/cli/main.js');

/** These load what every command line needs, and no command. */
const FIRST = ['main', 'start', 'run'].map((name) => resolve(`dist/cli/${name}.js`));

/** Whole paths of the modules that others load on demand; not of those that every command line loads first. */
const onDemand = new Set();
for (const file of files.filter((name) => !FIRST.includes(name))) {
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

/**
 * Commander starts programs for commands that are files of their own; here none is, and what starts programs takes Node three
 * milliseconds to load.
 */
const withoutPrograms = {
  name: 'without-programs',
  setup({ onLoad }) {
    onLoad({ filter: /commander\/lib\/command\.js$/ }, async ({ path }) => {
      const text = await readFile(path, 'utf8');
      const needed = /const childProcess = require\('node:child_process'\);/;
      if (!needed.test(text)) throw new Error(`${path} loads what starts programs in another way`);
      const late =
        "const childProcess = { spawn: (...args) => require('node:child_process').spawn(...args) };";
      return { contents: text.replace(needed, late) };
    });
  },
};

/** Packages that stay outside. */
const packages = Object.keys({ ...dependencies, ...optionalDependencies, ...peerDependencies });

/** Of all that is bundled. */
const common = {
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
};

/** Bundles a program, and keeps in one file what `base` loads. */
async function bundle(program, base) {
  await build({
    ...common,
    entryPoints: [program],
    plugins: [inOneFile(base), withoutPrograms],
    // The package says that no module does anything by being loaded, so these imports are there for the bundler alone.
    logOverride: { 'ignored-bare-import': 'silent' },
    external: packages.filter((name) => !TAKEN_IN.includes(name)),
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

/** What a program that embeds this package imports. The parts that they share are shared, so that each class is there once. */
const entrances = Object.values(exports).flatMap((entrance) => entrance.default ?? []);

await build({
  ...common,
  entryPoints: entrances.map((path) => path.replace('dist/bundle/', 'dist/')),
  outdir: 'dist/bundle',
  external: packages,
});

// The page of the daemon: one script, and what it stands in.
await mkdir(join('dist', PAGE), { recursive: true });
await build({
  entryPoints: [join('src', PAGE, 'main.ts')],
  outfile: join('dist', PAGE, 'page.js'),
  tsconfig: join('src', PAGE, 'tsconfig.json'),
  bundle: true,
  minify: true,
  platform: 'browser',
  target: 'es2022',
  format: 'esm',
});
for (const name of ['index.html', 'page.css', 'icon.svg']) {
  await copyFile(join('src', PAGE, name), join('dist', PAGE, name));
}
