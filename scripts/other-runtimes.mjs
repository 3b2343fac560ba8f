// Tries the built package on Bun and Deno, which npm brings into a folder: node scripts/other-runtimes.mjs FOLDER
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

const STEPS = `
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { compare, copy, createServer, openDevice } from 'lacuna';
import { Bitmap } from 'lacuna/bitmap';
import { Repository } from 'lacuna/repository';

const folder = mkdtempSync(join(tmpdir(), 'lacuna-'));
const at = (name) => join(folder, name);
const source = at('disk.raw');
writeFileSync(source, Buffer.alloc(8 << 20, 'disk'));

async function equals(target, options = {}) {
  await copy({ source, target, threads: 0, ...options });
  return (await compare({ a: source, b: target, threads: 0 })).equal;
}

const steps = {
  bitmaps: async () => {
    const bitmap = new Bitmap({ size: 2 ** 40, granularity: 65536 });
    bitmap.set(0, 100000);
    return bitmap.count === 2;
  },
  'copies of raw files': () => equals(at('copy.raw')),
  'copies of qcow2 images': () => equals(at('copy.qcow2')),
  'copies with threads': () => equals(at('threads.raw'), { threads: 2 }),
  'compressed images': () => equals(at('small.qcow2'), { compress: true }),
  repositories: async () => {
    const repository = Repository.open(at('repository'), { create: true });
    await repository.backup({ machine: 'web', disks: [{ name: 'vda', source }] });
    return true;
  },
  'the NBD server and client': async () => {
    const server = await createServer({ exports: [{ name: '', device: await openDevice(source) }], threads: 0 });
    await server.listen({ type: 'unix', path: at('socket') });
    await copy({ source: 'nbd+unix:///?socket=' + at('socket'), target: at('served.raw'), threads: 0 });
    return true;
  },
};

const late = () => new Promise((_, reject) => setTimeout(() => reject(new Error('it hangs')), 30_000));
for (const [name, step] of Object.entries(steps)) {
  const told = await Promise.race([step(), late()]).catch(({ message }) => message);
  console.log(name.padEnd(30), told === true ? 'yes' : told);
}
rmSync(folder, { recursive: true });
process.exit(0);
`;

const [given] = process.argv.slice(2);
if (given === undefined) throw new TypeError('say the folder for Bun and Deno');
const folder = resolve(given);
mkdirSync(folder, { recursive: true });
const manifest = { private: true, type: 'module' };
// Their programs are fetched by scripts of theirs, which npm may not run by itself.
const install = ['install', '--no-save', '--ignore-scripts', '--no-package-lock'];
writeFileSync(join(folder, 'package.json'), JSON.stringify(manifest));
execFileSync('npm', [...install, 'bun', 'deno'], { cwd: folder, stdio: 'inherit' });
for (const script of ['bun/install.js', 'deno/install.cjs']) {
  execFileSync(process.execPath, [join(folder, 'node_modules', script)], {
    cwd: join(folder, 'node_modules', script, '..'),
    stdio: 'ignore',
  });
}
// Deno takes only what is named there.
writeFileSync(
  join(folder, 'package.json'),
  JSON.stringify({ ...manifest, dependencies: { lacuna: '*' } }),
);
rmSync(join(folder, 'node_modules/lacuna'), { recursive: true, force: true });
symlinkSync(resolve('.'), join(folder, 'node_modules/lacuna'));
writeFileSync(join(folder, 'steps.mjs'), STEPS);

const bin = (name) => join(folder, 'node_modules/.bin', name);
for (const [name, ...argv] of [
  ['Node', process.execPath],
  ['Bun', bin('bun')],
  ['Deno', bin('deno'), 'run', '-A', '--node-modules-dir=manual'],
]) {
  const [program, ...rest] = argv;
  const version = execFileSync(program, ['--version'], { encoding: 'utf8' }).split('\n')[0];
  console.log(`\n${name}: ${version}`);
  spawnSync(program, [...rest, 'steps.mjs'], { cwd: folder, stdio: 'inherit' });
}
