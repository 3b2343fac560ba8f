/** A file system of our own to run on, so that the outcomes are those of ext4 wherever this runs. */
import {
  closeSync,
  mkdirSync,
  readlinkSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Materials } from './materials.js';
import type { Ground } from './matrix.js';
import { attachLoop, sh } from './place.js';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
const MIB = 1024 * 1024;

/**
 * Makes the ground in an empty folder, whose path is short, because that of a Unix socket holds 107 bytes at most. As
 * root, call it in a mount namespace of its own: its mounts go with it.
 */
export async function makeGround(base: string): Promise<Ground> {
  const isRoot = process.getuid?.() === 0;
  if (isRoot) checkNamespace();
  const folder = isRoot ? mountDisk(base) : base;
  if (isRoot) mountDevices(base);
  const materials = await Materials.make(join(folder, 'good'));
  return { folder, root: isRoot ? bindRoot(base) : ROOT, materials, isRoot };
}

function mountDisk(base: string): string {
  sh('mount', '-t', 'tmpfs', '-o', 'mode=755,size=2g', 'lacuna', base);
  const disk = join(base, 'disk');
  writeFileSync(disk, '');
  truncateSync(disk, 1024 * MIB);
  sh('mke2fs', '-q', '-t', 'ext4', '-O', '^has_journal', '-m', '0', disk);
  const folder = join(base, 'r');
  mkdirSync(folder);
  const { path, fd } = attachLoop(disk);
  sh('mount', path, folder);
  closeSync(fd);
  return folder;
}

/** As many as are ever attached at the same time, by us and by others. */
const LOOP_DEVICES = 32;

/** A /dev of our own: what a fault does to the devices' names there, it must not do to this machine. */
function mountDevices(base: string): void {
  const folder = join(base, 'dev');
  mkdirSync(folder);
  const node = (name: string, ...numbers: readonly string[]) =>
    sh('mknod', '-m', '666', join(folder, name), ...numbers);
  node('null', 'c', '1', '3');
  node('zero', 'c', '1', '5');
  node('full', 'c', '1', '7');
  node('random', 'c', '1', '8');
  node('urandom', 'c', '1', '9');
  node('loop-control', 'c', '10', '237');
  for (let i = 0; i < LOOP_DEVICES; i++) node(`loop${i}`, 'b', '7', `${i}`);
  symlinkSync('/proc/self/fd', join(folder, 'fd'));
  for (const [i, name] of ['stdin', 'stdout', 'stderr'].entries()) {
    symlinkSync(`/proc/self/fd/${i}`, join(folder, name));
  }
  sh('mount', '--bind', folder, '/dev');
}

/** The checkout may lie where other users cannot look. */
function bindRoot(base: string): string {
  const root = join(base, 'lacuna');
  mkdirSync(root);
  sh('mount', '--bind', ROOT, root);
  sh('mount', '-o', 'remount,bind,ro', root);
  return root;
}

/** Mounts of ours must not be seen by others, nor be left to them. */
function checkNamespace(): void {
  const own = readlinkSync('/proc/self/ns/mnt');
  if (own !== readlinkSync(`/proc/${process.ppid}/ns/mnt`)) return;
  throw new Error('Start this in a mount namespace of its own, as start.ts does');
}
