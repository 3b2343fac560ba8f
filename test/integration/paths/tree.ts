/** What files a run finds and what it leaves, so that a table can tell what became of them. */
import {
  closeSync,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  type Stats,
} from 'node:fs';
import { join } from 'node:path';
import { digestOf, type Materials } from './materials.js';
import { NOBODY, sh, textOf } from './place.js';

interface Entry {
  readonly type: string;
  readonly mode: number;
  readonly owner: number;
  readonly group: number;
  readonly inode: number;
  /** Of its bytes, or where it leads to. */
  readonly content: string;
  readonly acl?: string;
}

/** Names from the folder of a run, and `PATH` where that lies elsewhere. */
export type Tree = ReadonlyMap<string, Entry>;

const OUTSIDE = 'PATH';

/** Not looked into, and not told of: what serves the kind. */
const SKIPPED = new Set(['at/STORED', 'work/MOUNT', 'work/command.sh']);

/** Looks at all below a folder, and at a path that lies elsewhere. */
export function lookAt(folder: string, path: string, { acls = false } = {}): Tree {
  const tree = new Map<string, Entry>();
  const visit = (name: Buffer) => {
    const relative = textOf(name).slice(folder.length + 1);
    if (SKIPPED.has(relative)) return;
    const stats = lstatSync(name);
    if (relative !== '') tree.set(relative, entryOf(name, stats, acls));
    if (!stats.isDirectory()) return;
    for (const child of readdirSync(name, { encoding: 'buffer' })) {
      visit(Buffer.concat([name, Buffer.from('/'), child]));
    }
  };
  visit(Buffer.from(folder));
  const entry = path.startsWith(`${folder}/`) ? undefined : entryOutside(path, acls);
  if (entry !== undefined) tree.set(OUTSIDE, entry);
  return tree;
}

function entryOutside(path: string, acls: boolean): Entry | undefined {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  if (stats === undefined) return undefined;
  const entry = entryOf(Buffer.from(path), stats, acls);
  return stats.isBlockDevice() ? { ...entry, content: digestOf(readFileSync(path)) } : entry;
}

function entryOf(name: Buffer, stats: Stats, acls: boolean): Entry {
  const { mode, uid: owner, gid: group, ino: inode } = stats;
  const acl = acls && stats.isFile() ? sh('getfacl', '-cnp', `${name}`) : undefined;
  return {
    ...{ type: typeOf(stats), mode: mode & 0o7777, owner, group, inode },
    content: contentOf(name, stats),
    ...(acl !== undefined && { acl }),
  };
}

function typeOf(stats: Stats): string {
  if (stats.isFile()) return 'file';
  if (stats.isDirectory()) return 'folder';
  if (stats.isSymbolicLink()) return 'link';
  if (stats.isFIFO()) return 'FIFO';
  return stats.isSocket() ? 'socket' : 'device';
}

function contentOf(name: Buffer, stats: Stats): string {
  if (stats.isFile()) return digestOfFile(name);
  return stats.isSymbolicLink() ? readlinkSync(name) : '';
}

/** As large as most files here: what thousands of files are read into is made once. */
const buffer = Buffer.allocUnsafe(2 * 1024 * 1024);

function digestOfFile(name: Buffer): string {
  const fd = openSync(name, 'r');
  try {
    const { size } = fstatSync(fd);
    if (size > buffer.length) return digestOf(readFileSync(fd));
    return digestOf(buffer.subarray(0, readSync(fd, buffer, 0, size, 0)));
  } finally {
    closeSync(fd);
  }
}

export interface DiffOptions {
  readonly folder: string;
  /** The path under test. */
  readonly path: string;
  readonly materials: Materials;
  readonly nobody: boolean;
}

/** What differs, a sentence each. */
export function diffTrees(before: Tree, after: Tree, options: DiffOptions): string[] {
  const { folder, path } = options;
  const names = [...new Set([...before.keys(), ...after.keys()])].sort();
  return names.flatMap((name) => {
    const change = changeOf(before.get(name), after.get(name), options);
    if (change === undefined) return [];
    const full = name === OUTSIDE ? path : join(folder, name);
    return [`${full} ${change}`];
  });
}

function changeOf(
  old: Entry | undefined,
  fresh: Entry | undefined,
  { materials, nobody }: DiffOptions,
): string | undefined {
  if (fresh === undefined) return old && 'gone';
  if (old === undefined) {
    const usual = fresh.type === 'file' ? 0o644 : 0o755;
    const mode = fresh.mode === usual ? '' : `, mode ${octal(fresh.mode)}`;
    const owner =
      fresh.owner === (nobody ? NOBODY : process.getuid?.()) ? '' : `, owner ${fresh.owner}`;
    return `made${holds(fresh, materials)}${mode}${owner}`;
  }
  const changes: string[] = [];
  if (old.type !== fresh.type) changes.push(`a ${fresh.type} now`);
  else if (old.inode !== fresh.inode) changes.push(`replaced${holds(fresh, materials)}`);
  else if (old.content !== fresh.content) changes.push(`written${holds(fresh, materials)}`);
  if (old.mode !== fresh.mode) changes.push(`mode ${octal(old.mode)} is ${octal(fresh.mode)}`);
  if (old.owner !== fresh.owner) changes.push(`owner ${old.owner} is ${fresh.owner}`);
  if (old.group !== fresh.group) changes.push(`group ${old.group} is ${fresh.group}`);
  if (old.acl !== fresh.acl) changes.push('ACL changed');
  return changes.length === 0 ? undefined : changes.join(', ');
}

function octal(mode: number): string {
  return mode.toString(8);
}

function holds({ type, content }: Entry, materials: Materials): string {
  const name = type === 'file' || type === 'device' ? materials.nameOf(content) : undefined;
  return name === undefined ? '' : `: ${name}`;
}
