// Puts the QEMU of Debian's next release into a folder, for the tests of live backup, without touching this system:
//
//     node scripts/newer-qemu.mjs FOLDER
//
// It needs root, debootstrap, and 400 MB. What it prints at the end runs the tests with it. debootstrap knows where packages
// are; DEBIAN_MIRROR names another place.
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

const SUITE = 'trixie';
const MIRROR = process.env.DEBIAN_MIRROR ? [process.env.DEBIAN_MIRROR] : [];
const LIBRARIES = 'usr/lib/x86_64-linux-gnu';

function main([given]) {
  if (given === undefined) {
    console.error('usage: node scripts/newer-qemu.mjs FOLDER');
    return 2;
  }
  const folder = resolve(given);
  const root = join(folder, SUITE);
  const daemon = join(root, 'usr/bin/qemu-storage-daemon');
  mkdirSync(folder, { recursive: true });
  if (!existsSync(daemon)) {
    const packages = '--include=qemu-system-common,qemu-utils';
    const args = ['--variant=minbase', packages, SUITE, root, ...MIRROR];
    const { status, error } = spawnSync('debootstrap', args, { stdio: 'inherit' });
    if (status !== 0) {
      console.error(
        `debootstrap failed (${error?.message ?? status}): install it, and run this as root`,
      );
      return 1;
    }
  }
  // Its own loader and libraries, so that it runs here as any program does, with paths of this system.
  const wrapper = join(folder, 'qemu-storage-daemon');
  const loader = join(root, 'lib64/ld-linux-x86-64.so.2');
  const call = `exec ${loader} --library-path ${join(root, LIBRARIES)} ${daemon} "$@"`;
  writeFileSync(wrapper, `#!/bin/sh\n${call}\n`);
  chmodSync(wrapper, 0o755);
  spawnSync(wrapper, ['--version'], { stdio: 'inherit' });
  console.log(`LACUNA_STORAGE_DAEMON=${wrapper} npx vitest run test/integration/qemu`);
  return 0;
}

process.exitCode = main(process.argv.slice(2));
