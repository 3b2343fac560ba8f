/** The package inside of a program that was bundled, by the lines that docs/embedding.md shows. */
import { execFile } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { beforeAll, expect, test } from 'vitest';
import { temporaryFolder } from '../../support/temporary-folder.js';

const run = promisify(execFile);
const ROOT = resolve('.');
const folder = temporaryFolder();
const at = (...names: string[]) => join(folder, ...names);

/** WASM, threads, a package that stays outside, and what the package knows of itself. */
const PROGRAM = `
import { copy, compare } from 'lacuna';
import { Daemon } from 'lacuna/daemon';
import { Repository } from 'lacuna/repository';
import { writeFileSync } from 'node:fs';

async function main(folder) {
  const source = folder + '/disk.raw';
  writeFileSync(source, Buffer.alloc(8 << 20, 'disk'));
  const { threads } = await copy({ source, target: folder + '/disk.qcow2', threads: 2 });
  const image = { compressionType: 'zstd' };
  await copy({ source, target: folder + '/small.qcow2', compress: true, image });
  const { equal } = await compare({ a: folder + '/disk.qcow2', b: folder + '/small.qcow2' });
  const repository = Repository.open(folder + '/repository', { create: true });
  await repository.backup({ machine: 'web', disks: [{ name: 'vda', source }] });
  const daemon = new Daemon();
  const version = await daemon.execute('query-version');
  await daemon.close();
  console.log(JSON.stringify({ threads, equal, daemon: version.package }));
}
main(process.argv[2]).catch((error) => {
  console.error(error);
  process.exit(1);
});
`;

/** What a program needs of others, in a folder of its own. */
function linkPackages(names: readonly string[]): void {
  for (const name of names) {
    const place = join(ROOT, 'node_modules', name);
    if (!existsSync(place)) continue;
    mkdirSync(dirname(at('node_modules', name)), { recursive: true });
    symlinkSync(realpathSync(place), at('node_modules', name));
  }
}

const PAGE = readFileSync('docs/embedding.md', 'utf8');
const recipes = [...PAGE.matchAll(/^```js\n(import \{ cpSync \}.*?)^```/gms)].map(
  ([, code]) => code,
);

beforeAll(() => {
  linkPackages(['esbuild', 'vite', 'piscina', '@bokuweb/zstd-wasm', 'koffi', '@koromix']);
  symlinkSync(ROOT, at('node_modules/lacuna'));
  writeFileSync(at('app.mjs'), PROGRAM);
});

async function bundleAndRun(recipe: string, program: string): Promise<unknown> {
  writeFileSync(at('bundle.mjs'), recipe);
  await run(process.execPath, ['bundle.mjs'], { cwd: folder });
  // From now on it is not there.
  renameSync(at('node_modules/lacuna'), at('away'));
  try {
    rmSync(at('work'), { recursive: true, force: true });
    mkdirSync(at('work'));
    const { stdout } = await run(process.execPath, [at('out', program), at('work')]);
    return JSON.parse(stdout);
  } finally {
    renameSync(at('away'), at('node_modules/lacuna'));
  }
}

const { version } = JSON.parse(readFileSync('package.json', 'utf8'));
const WORKS = { threads: 2, equal: true, daemon: `lacuna ${version}` };

test('the page shows how esbuild and vite bundle it', () => {
  expect(recipes.map((code) => /from '(esbuild|vite)'/.exec(code)?.[1])).toEqual([
    'esbuild',
    'vite',
  ]);
});

test('a program that vite bundles has its WASM and its threads', async () => {
  expect(await bundleAndRun(recipes[1], 'app.mjs')).toEqual(WORKS);
}, 120_000);

test('a program that esbuild bundles has its WASM and its threads', async () => {
  expect(await bundleAndRun(recipes[0], 'app.mjs')).toEqual(WORKS);
  const asCommonJs = recipes[0].replace('out/app.mjs', 'out/app.cjs').replace("'esm'", "'cjs'");
  expect(await bundleAndRun(asCommonJs.replace(/^for .*$/m, ''), 'app.cjs')).toEqual(WORKS);
}, 120_000);

test('a bundled program without the copied files says what is missing', async () => {
  renameSync(at('out/lacuna'), at('out/moved'));
  renameSync(at('node_modules/lacuna'), at('away'));
  const failure = run(process.execPath, [at('out/app.mjs'), at('work')]);
  await expect(failure).rejects.toMatchObject({
    stderr: expect.stringMatching(/ERR_PACKAGE_FILE/),
  });
  renameSync(at('away'), at('node_modules/lacuna'));
});

test('a program of CommonJS requires every part of it', async () => {
  const { exports } = JSON.parse(readFileSync('package.json', 'utf8'));
  const parts = Object.keys(exports).map((name) => name.replace(/^\./, 'lacuna'));
  const code = `for (const name of ${JSON.stringify(parts)}) if (Object.keys(require(name)).length === 0) throw new Error(name);`;
  writeFileSync(at('app.cjs'), code);
  await run(process.execPath, ['app.cjs'], { cwd: folder });
});
