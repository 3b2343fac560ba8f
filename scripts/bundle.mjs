// Makes few files of the command, the threads, the processes and the library, which share them: a hundred small modules take
// longer to find and load than a sparse disk takes to copy. What is loaded on demand stays apart. Only these files are
// published, and the single modules are not.
import { chmod, copyFile, mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { dirname, join, relative, resolve } from 'node:path';
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

/** Nearly every command uses most of what a copy loads. */
const base = resolve('dist/cli/commands/copy/copy.js');

/**
 * Has everything that is loaded on demand say that it needs `base` as well, which it mostly does. A bundler makes a file for
 * each combination of modules that share some code; like this, most of what `base` loads is in a few files, and not in thirty.
 */
const inFewFiles = {
  name: 'in-few-files',
  setup({ onLoad, onResolve }) {
    onResolve({ filter: /^\./ }, ({ path, kind, resolveDir, importer }) => {
      if (kind !== 'dynamic-import' || FIRST.includes(importer)) return undefined;
      const file = resolve(resolveDir, path);
      return file === base ? undefined : { path: file, namespace: 'with-base' };
    });
    onLoad({ filter: /./, namespace: 'with-base' }, ({ path }) => {
      const contents = `import ${JSON.stringify(base)}; export * from ${JSON.stringify(path)};`;
      return { contents, resolveDir: dirname(path) };
    });
  },
};

/**
 * Commander starts programs for commands that are files of their own; here none is, and what starts programs takes Node three
 * milliseconds to load. It also loads Node's modules with `require`, which is not there in a module that is no CommonJS.
 */
const commander = {
  name: 'commander',
  setup({ onLoad }) {
    onLoad({ filter: /commander\/lib\/.*\.js$/ }, async ({ path }) => {
      const builtin = (name) => `globalThis.process.getBuiltinModule(${name})`;
      const contents = (await readFile(path, 'utf8'))
        .replace(
          "require('node:child_process')",
          `{ spawn: (...args) => ${builtin("'node:child_process'")}.spawn(...args) }`,
        )
        .replace(/\brequire\(('node:[^']+')\)/g, (_, name) => builtin(name));
      return { contents };
    });
  },
};

/** Packages that stay outside. */
const packages = Object.keys({ ...dependencies, ...optionalDependencies, ...peerDependencies });

/**
 * Of all that is bundled. Names stay, and lines are short, so that the stack of an error can be read without source maps,
 * which are not in the package.
 */
const common = {
  outdir: 'dist',
  allowOverwrite: true,
  bundle: true,
  platform: 'node',
  target: 'node20',
  format: 'esm',
  sourcemap: true,
  minifyWhitespace: true,
  minifySyntax: true,
  lineLimit: 120,
  external: packages.filter((name) => !TAKEN_IN.includes(name)),
};

/** An entry of the bundler for a file in dist, which is made there under this name. */
function entry(file, made = file) {
  return { in: file, out: relative('dist', made).replace(/\.js$/, '') };
}

/** Started by name, each in a thread or a process of its own. */
const programs = files.filter((name) => /(worker|-process)\.js$/.test(name));

/** So small that a file of its own costs less than the few that it would share. */
const ALONE = [resolve('dist/wasm/zstd-worker.js')];

/** What a program that embeds this package imports. */
const entrances = Object.values(exports).flatMap((entrance) => entrance.default ?? []);

// The names of parts hold digests: what an earlier build left would stay for ever.
for (const folder of ['dist/parts', 'dist/bundle']) {
  await rm(folder, { recursive: true, force: true });
}

// Classes are there once, whatever a program imports.
await build({
  ...common,
  entryPoints: [
    entry(command),
    ...programs.filter((name) => !ALONE.includes(name)).map((name) => entry(name)),
    ...entrances.map((made) => entry(made.replace('dist/bundle/', 'dist/'), made)),
  ],
  splitting: true,
  chunkNames: 'parts/[name]-[hash]',
  plugins: [inFewFiles, commander],
  // The package says that no module does anything by being loaded, so these imports are there for the bundler alone.
  logOverride: { 'ignored-bare-import': 'silent' },
});
await build({ ...common, entryPoints: ALONE.map((name) => entry(name)) });
await chmod(command, 0o755);

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
