/**
 * What a command line loads before it begins, which is most of what a small copy costs. No time is asserted: the files are
 * counted, as V8 tells them of its own accord.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { runCli } from '../../support/run-cli.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const folder = temporaryFolder();
const BUILT = fileURLToPath(new URL('../../../dist/', import.meta.url));

/** Runs a command line, and returns the paths of the scripts that it loaded. */
async function loadedBy(...args: string[]): Promise<string[]> {
  const told = mkdtempSync(join(folder, 'loaded-'));
  const { code, stderr } = await runCli(args, { cwd: folder, env: { NODE_V8_COVERAGE: told } });
  expect({ code, stderr }).toMatchObject({ code: 0 });
  return scriptsIn(told);
}

function scriptsIn(told: string): string[] {
  const [name] = readdirSync(told);
  const { result } = JSON.parse(readFileSync(join(told, name), 'utf8'));
  const urls = (result as { url: string }[]).map(({ url }) => url);
  return urls.filter((url) => url.startsWith('file:')).map((url) => fileURLToPath(url));
}

function ours(paths: readonly string[]): string[] {
  return paths.filter((path) => path.startsWith(BUILT));
}

/** Modules of Node that a file imports. */
function builtinsIn(path: string): string[] {
  const text = readFileSync(path, 'utf8');
  return [...text.matchAll(/\bimport\b[^"]*"node:([^"]+)"/g)].map(([, name]) => name);
}

/** Those of some classes that files define. */
function classesIn(paths: readonly string[], names: readonly string[]): string[] {
  const text = paths.map((path) => readFileSync(path, 'utf8')).join('\n');
  return names.filter((name) => new RegExp(`\\b${name} ?= ?class\\b`).test(text));
}

/** Most copies need none of these, and together they are as large as all the rest. */
const NOT_NEEDED = ['Qcow2Driver', 'ImageBitmaps', 'NbdClient', 'BitmapFile', 'Resumption'];

test('a copy of a raw disk loads few files, and nothing of images, TLS and threads', async () => {
  writeFileSync(join(folder, 'disk.raw'), Buffer.alloc(65536, 'lacuna'));
  const loaded = await loadedBy('copy', 'disk.raw', 'copy.raw');
  expect(readFileSync(join(folder, 'copy.raw'), 'utf8')).toBe(
    'lacuna'.repeat(11000).slice(0, 65536),
  );
  const files = ours(loaded);
  expect(files.length).toBeGreaterThan(1);
  expect(files.length).toBeLessThan(21);
  const builtins = files.flatMap(builtinsIn);
  expect(builtins).toContain('fs');
  for (const name of ['tls', 'zlib', 'worker_threads']) expect(builtins).not.toContain(name);
  const programs = files.filter((path) =>
    /= ?[\w.]+\("node:child_process"\)/.test(readFileSync(path, 'utf8')),
  );
  expect(programs).toEqual([]);
  expect(classesIn(files, ['CopyRun', ...NOT_NEEDED])).toEqual(['CopyRun']);
});

test('a copy loads the package for system calls once', async () => {
  writeFileSync(join(folder, 'disk.raw'), 'lacuna');
  const loaded = await loadedBy('copy', 'disk.raw', 'once.raw');
  const forms = loaded.filter((path) => path.includes('/node_modules/koffi/')).map(extname);
  expect(new Set(forms).size).toBe(1);
});

test('help loads no command', async () => {
  const loaded = ours(await loadedBy('--help'));
  expect(loaded.length).toBeGreaterThan(1);
  expect(classesIn(loaded, ['CopyRun', ...NOT_NEEDED])).toEqual([]);
});

test('the version is told without loading what understands command lines', async () => {
  const loaded = ours(await loadedBy('--version'));
  const text = (await loadedBy('--help')).map((path) => readFileSync(path, 'utf8')).join();
  expect(text).toContain('CommanderError');
  for (const path of loaded) expect(readFileSync(path, 'utf8')).not.toContain('CommanderError');
});

test('a copy into a new image loads what writes in place, and nothing that changes, repairs or keeps bitmaps', async () => {
  writeFileSync(join(folder, 'disk.raw'), 'lacuna');
  const loaded = ours(await loadedBy('copy', 'disk.raw', 'plain.qcow2'));
  const names = ['FixedWriter', 'ImageWriter', 'ImageBitmaps', 'DirtyBitmaps', 'Repair'];
  expect(classesIn(loaded, names)).toEqual(['FixedWriter']);
});

test('a program that imports the package loads few files, and each class once', () => {
  const told = mkdtempSync(join(folder, 'imported-'));
  const program = `
    const subpaths = ['', '/bitmap', '/nbd', '/qmp', '/qemu', '/repository', '/graph', '/daemon', '/errors'];
    const [index, bitmap, ...others] = await Promise.all(subpaths.map((path) => import('lacuna' + path)));
    const { LacunaError } = others.at(-1);
    const error = await index.openDevice({ driver: 'file', filename: '/not/there' }).catch((error) => error);
    console.log(error instanceof LacunaError, error.code);`;
  const env = { ...process.env, NODE_V8_COVERAGE: told };
  const root = fileURLToPath(new URL('../../../', import.meta.url));
  const args = ['--input-type=module', '--eval', program];
  const printed = execFileSync(process.execPath, args, { cwd: root, env, encoding: 'utf8' });
  expect(printed).toBe('true ERR_DEVICE_OPEN\n');
  const files = ours(scriptsIn(told));
  expect(files.length).toBeLessThan(60);
  const classes = ['LacunaError', 'Bitmap', 'NbdClient', 'CopyRun', 'GraphJob', 'Monitor'];
  const counts = files.flatMap((path) => classesIn([path], classes));
  expect(counts.toSorted()).toEqual(classesIn(files, classes).toSorted());
});

test('what a copy does not load is there when it is asked for', async () => {
  writeFileSync(join(folder, 'disk.raw'), 'lacuna');
  const loaded = ours(await loadedBy('copy', 'disk.raw', 'image.qcow2', '--resume', 'notes'));
  const found = classesIn(loaded, NOT_NEEDED);
  expect(found).toEqual(expect.arrayContaining(['Qcow2Driver', 'BitmapFile', 'Resumption']));
});
