/** Where one run happens, and the programs that prepare it. */
import { execFileSync } from 'node:child_process';
import {
  copyFileSync,
  lchownSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { type Materials, withBackingName } from './materials.js';
import type { Role } from './roles.js';

/** The user without rights, as which some kinds run. */
export const NOBODY = 65534;

/** Two folders for one run: the path under test is in `at`, everything else in `work`. */
export interface Place {
  readonly at: string;
  readonly work: string;
  readonly role: Role;
  readonly materials: Materials;
}

/** Runs a program that must succeed; its words are told where it does not. */
export function sh(program: string, ...args: readonly string[]): string {
  try {
    return execFileSync(program, args, { encoding: 'utf8', stdio: 'pipe' });
  } catch (cause) {
    const { stderr = '' } = cause as { stderr?: string };
    throw new Error(`${program} ${args.join(' ')}: ${stderr || cause}`, { cause });
  }
}

/** Attaches a loop device, which goes when it is closed: also by a process that is killed. */
export function attachLoop(
  file: string,
  ...options: readonly string[]
): { path: string; fd: number } {
  const path = sh('losetup', '--find', '--show', ...options, file).trim();
  const fd = openSync(path, 'r');
  // While it is open this is only a promise.
  sh('losetup', '--detach', path);
  // What somebody made read-only once stays so for the next one.
  if (!options.includes('--read-only') && isReadOnly(path)) sh('blockdev', '--setrw', path);
  return { path, fd };
}

function isReadOnly(device: string): boolean {
  return readFileSync(device.replace('/dev/', '/sys/block/').concat('/ro'), 'utf8').trim() !== '0';
}

/** Stands for the byte 0xff, which no text in UTF-8 has. */
export const BAD_BYTE = '\ue0ff';

/** A path as the kernel has it. */
export function bytesOf(path: string): Buffer {
  return Buffer.from(recode(path, 'utf8', 'latin1').replaceAll(MARK, '\xff'), 'latin1');
}

/** A path of the kernel, with a mark for what is no text. */
export function textOf(path: Buffer): string {
  return recode(path.toString('latin1').replaceAll('\xff', MARK), 'latin1', 'utf8');
}

function recode(text: string, from: BufferEncoding, to: BufferEncoding): string {
  return Buffer.from(text, from).toString(to);
}

const MARK = recode(BAD_BYTE, 'utf8', 'latin1');

/** Makes what the role's user would name: a file with the right content, a folder, or nothing. */
export function makeGood(path: string, { role, materials }: Place): void {
  if (role.good === 'nothing') return;
  const bytes = bytesOf(path);
  if (role.good !== 'folder') {
    copyFileSync(materials.path(role.good), bytes);
    return;
  }
  mkdirSync(bytes);
  copyFileSync(materials.path('base.raw'), Buffer.concat([bytes, Buffer.from('/base.raw')]));
}

/** What a file or a device holds at the path. */
export function goodBytes({ role, materials }: Place): Buffer {
  const { good } = role;
  return readFileSync(materials.path(good === 'folder' || good === 'nothing' ? 'text' : good));
}

/** Makes the other files of a role. */
export function makeOthers({ at, work, role, materials }: Place): void {
  for (const name of role.near ?? []) copyFileSync(materials.path(name), join(at, name));
  for (const name of role.files ?? []) copyFileSync(materials.path(name), join(work, name));
}

/** Makes the image that names the path. */
export function nameInImage(path: string, { work, role, materials }: Place): void {
  if (role.named === undefined) return;
  const name = role.named === 'inside' ? `${path}/base.raw` : path;
  const image = readFileSync(materials.path('over.qcow2'));
  writeFileSync(join(work, 'over.qcow2'), withBackingName(image, bytesOf(name)));
}

/** Gives everything in a folder, and the folder, to the user without rights. */
export function giveAway(folder: string): void {
  lchownSync(folder, NOBODY, NOBODY);
  for (const name of readdirSync(folder)) lchownSync(join(folder, name), NOBODY, NOBODY);
}
