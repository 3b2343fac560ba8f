// Puts the QEMU of Debian's next release into a folder, for the tests of live backup, without touching this system:
//
//     node scripts/newer-qemu.mjs FOLDER
//
// It needs root, debootstrap, and 700 MB. What it prints at the end runs the tests with it. debootstrap knows where packages
// are; DEBIAN_MIRROR names another place.
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

const SUITE = 'trixie';
const MIRROR = process.env.DEBIAN_MIRROR ? [process.env.DEBIAN_MIRROR] : [];
const LIBRARIES = 'usr/lib/x86_64-linux-gnu';
const PACKAGES = 'qemu-system-common,qemu-system-x86,qemu-utils,seabios';

function main([given]) {
  if (given === undefined) {
    console.error('usage: node scripts/newer-qemu.mjs FOLDER');
    return 2;
  }
  const folder = resolve(given);
  const root = join(folder, SUITE);
  mkdirSync(folder, { recursive: true });
  if (!existsSync(join(root, 'usr/bin/qemu-system-x86_64')) && !bootstrap(root)) return 1;
  const daemon = wrap(folder, 'qemu-storage-daemon');
  // Its firmware lies in two folders.
  const firmware = ['usr/share/qemu', 'usr/share/seabios'].map((path) => `-L ${join(root, path)}`);
  const system = wrap(folder, 'qemu-system-x86_64', firmware.join(' '));
  for (const program of [daemon, system]) {
    if (spawnSync(program, ['--version'], { stdio: 'inherit' }).status !== 0) return 1;
  }
  console.log(
    `LACUNA_STORAGE_DAEMON=${daemon} LACUNA_QEMU=${system} npx vitest run test/integration/qemu`,
  );
  return 0;
}

/** Whether the packages are there; what another run has left half done is made anew. */
function bootstrap(root) {
  const unfinished = `${root}.unfinished`;
  for (const left of [root, unfinished]) rmSync(left, { recursive: true, force: true });
  const args = ['--variant=minbase', `--include=${PACKAGES}`, SUITE, unfinished, ...MIRROR];
  const { status, error } = spawnSync('debootstrap', args, { stdio: 'inherit' });
  if (status === 0) {
    renameSync(unfinished, root);
    return true;
  }
  console.error(
    `debootstrap failed (${error?.message ?? status}): install it, and run this as root`,
  );
  return false;
}

/** A program of that system with its own loader and libraries, so that it runs here as any does, with paths of this one. */
function wrap(folder, program, options = '') {
  const root = join(folder, SUITE);
  const loader = join(root, 'lib64/ld-linux-x86-64.so.2');
  const path = join(root, 'usr/bin', program);
  const wrapper = join(folder, program);
  const call = `${loader} --library-path ${join(root, LIBRARIES)} ${path} ${options}`.trimEnd();
  writeFileSync(wrapper, `#!/bin/sh\nexec ${call} "$@"\n`);
  chmodSync(wrapper, 0o755);
  return wrapper;
}

process.exitCode = main(process.argv.slice(2));
