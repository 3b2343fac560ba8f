import { execFile } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { access, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const run = promisify(execFile);
const ROOT = fileURLToPath(new URL('../../../', import.meta.url));

/** Paths of the files that a source asks for by name; any word stands for what is put into a name. */
function filesAskedIn(source: string): RegExp[] {
  const names = [...source.matchAll(/\bownFile\(([`'A-Z][^)]*)\)/g)].map(([, name]) => name);
  return names
    .map((name) => (name === 'PROGRAM' ? source.match(/const PROGRAM = (.+);/)![1] : name))
    .map((name) => name.replace(/[`']/g, '').replace(/\$\{\w+\}/g, '\\w+'))
    .map((name) => new RegExp(`^dist/${name.replace(/\.(?=\w)/g, '\\.')}`));
}

/** The package as its users get it: packed, and installed into an empty folder. */
describe('the package', () => {
  let folder: string;
  let version: string;
  let subpaths: string[];
  let packed: { size: number; files: Array<{ path: string }> };

  beforeAll(async () => {
    const manifest = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8'));
    version = manifest.version;
    subpaths = Object.keys(manifest.exports).filter((path) => !path.endsWith('.json'));
    folder = await mkdtemp(join(tmpdir(), 'lacuna-package-'));
    // Scripts would build into `dist` while other tests use it.
    const packing = ['pack', '--ignore-scripts', '--json', '--pack-destination', folder];
    const { stdout } = await run('npm', packing, { cwd: ROOT });
    const [made] = JSON.parse(stdout) as Array<typeof packed & { filename: string }>;
    packed = made;
    const { filename } = made;
    await writeFile(join(folder, 'package.json'), '{"private":true,"type":"module"}\n');
    await run('npm', ['install', '--prefer-offline', join(folder, filename)], { cwd: folder });
  });

  afterAll(() => rm(folder, { recursive: true, force: true }));

  test('brings the command', async () => {
    const { stdout } = await run('npx', ['lacuna', '--version'], { cwd: folder });
    expect(stdout.trim()).toBe(version);
  });

  test('is small, and brings few packages', async () => {
    expect(packed.size).toBeLessThan(1e6);
    expect(
      packed.files.filter(({ path }) => /\.(map|ts)$/.test(path) && !/\.d\.ts$/.test(path)),
    ).toEqual([]);
    const { stdout } = await run('npm', ['ls', '--all', '--parseable'], { cwd: folder });
    // The folder itself is a line.
    expect(stdout.trim().split('\n').length - 1).toBeLessThanOrEqual(20);
  });

  test('has every file that the engine looks for by name', () => {
    const sources = readdirSync(join(ROOT, 'src'), { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.ts'))
      .map((name) => readFileSync(join(ROOT, 'src', name), 'utf8'));
    const asked = sources.flatMap((text) => filesAskedIn(text));
    expect(asked.length).toBeGreaterThan(7);
    const paths = packed.files.map(({ path }) => path);
    const missing = asked.filter((name) => !paths.some((path) => name.test(path)));
    expect(missing).toEqual([]);
  });

  test('has man pages, which npm installs with a command for all', async () => {
    const inside = join(folder, 'node_modules/lacuna');
    const manifest = JSON.parse(await readFile(join(inside, 'package.json'), 'utf8'));
    const page = join(inside, manifest.directories.man, 'lacuna-copy.1');
    expect(await readFile(page, 'utf8')).toMatch(/^\.TH "LACUNA\\-COPY" 1 /);
  });

  test('has types that need nothing installed beside it', async () => {
    const lines = subpaths.map(
      (path, i) => `import * as part${i} from '${path.replace(/^\./, 'lacuna')}';\nvoid part${i};`,
    );
    await writeFile(join(folder, 'types.mts'), `${lines.join('\n')}\n`);
    const options = ['--noEmit', '--strict', '--module', 'nodenext', '--target', 'es2022'];
    const tsc = join(ROOT, 'node_modules/.bin/tsc');
    await run(tsc, [...options, 'types.mts'], { cwd: folder });
  });

  test('lets every subpath be imported', async () => {
    const names = subpaths.map((path) => path.replace(/^\./, 'lacuna'));
    const script = `for (const name of ${JSON.stringify(names)}) {
      const room = await import(name);
      if (Object.keys(room).length === 0) throw new Error(name + ' exports nothing');
    }`;
    await run(process.execPath, ['--input-type=module', '-e', script], { cwd: folder });
  });

  test('brings every page that its pages link to', async () => {
    const inside = join(folder, 'node_modules/lacuna');
    for (const page of ['README.md', 'CONTRIBUTING.md', 'docs/architecture.md']) {
      const text = await readFile(join(inside, page), 'utf8');
      const links = [...text.matchAll(/\]\((?!https?:)([^)#]+)\)/g)].map((match) => match[1]);
      for (const link of links) await access(join(inside, dirname(page), link));
    }
  });

  test('copies a disk', async () => {
    await writeFile(join(folder, 'disk.raw'), Buffer.alloc(1 << 20, 'lacuna'));
    await run('npx', ['lacuna', 'copy', 'disk.raw', 'copy.raw'], { cwd: folder });
    const [disk, copy] = await Promise.all(
      ['disk.raw', 'copy.raw'].map((name) => readFile(join(folder, name))),
    );
    expect(copy.equals(disk)).toBe(true);
  });
});

test('npx finds the command in a checkout', async () => {
  const { stdout } = await run('npx', ['--ignore-scripts', 'lacuna', '--help'], { cwd: ROOT });
  expect(stdout).toContain('Usage: lacuna');
});
