/** What may lie at a path: how each is made, and what has to be undone before it can be removed. */
import {
  chmodSync,
  chownSync,
  closeSync,
  linkSync,
  mkdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import {
  attachLoop,
  BAD_BYTE,
  giveAway,
  goodBytes,
  makeGood,
  NOBODY,
  type Place,
  sh,
} from './place.js';

/** One run's path, made. */
export interface Made {
  readonly path: string;
  /** The numbers of the device that the path has to be afterwards, as mknod takes them. */
  readonly device?: readonly [type: string, major: string, minor: string];
  undo?(): void | Promise<void>;
}

export interface Kind {
  readonly name: string;
  /** Needs devices, mounts, attributes or another user: root's rights. */
  readonly root?: true;
  /** Run as a user without rights. */
  readonly nobody?: true;
  /** Run as a process of its own, for a command line that only a shell can make. */
  readonly shell?: true;
  /** Also makes sense where nothing is at the path. */
  readonly bare?: true;
  make(place: Place): Made | Promise<Made>;
}

const SIMPLE: readonly Kind[] = [
  {
    name: 'file',
    make: (place) => {
      const path = join(place.at, 'NAME');
      writeFileSync(path, goodBytes(place));
      return { path };
    },
  },
  {
    name: 'folder',
    make: (place) => {
      const path = join(place.at, 'NAME');
      if (place.role.good === 'folder') makeGood(path, place);
      else mkdirSync(path);
      return { path };
    },
  },
  {
    name: 'empty file',
    make: ({ at }) => {
      const path = join(at, 'NAME');
      writeFileSync(path, '');
      return { path };
    },
  },
  {
    name: 'link',
    make: (place) => {
      makeGood(join(place.at, 'BEHIND'), place);
      symlinkSync('BEHIND', join(place.at, 'NAME'));
      return { path: join(place.at, 'NAME') };
    },
  },
  {
    name: 'link to nothing',
    bare: true,
    make: ({ at }) => {
      symlinkSync('BEHIND', join(at, 'NAME'));
      return { path: join(at, 'NAME') };
    },
  },
  {
    name: 'link to itself',
    make: ({ at }) => {
      symlinkSync('NAME', join(at, 'NAME'));
      return { path: join(at, 'NAME') };
    },
  },
  {
    name: 'second name of a file',
    make: (place) => {
      writeFileSync(join(place.at, 'FIRST'), goodBytes(place));
      linkSync(join(place.at, 'FIRST'), join(place.at, 'NAME'));
      return { path: join(place.at, 'NAME') };
    },
  },
  { name: 'missing', bare: true, make: ({ at }) => ({ path: join(at, 'NAME') }) },
  { name: 'missing folder', bare: true, make: ({ at }) => ({ path: join(at, 'GONE/NAME') }) },
  {
    name: 'missing, with / at its end',
    bare: true,
    make: ({ at }) => ({ path: join(at, 'NAME/') }),
  },
  {
    name: 'below a file',
    bare: true,
    make: ({ at }) => {
      writeFileSync(join(at, 'FILE'), '');
      return { path: join(at, 'FILE/NAME') };
    },
  },
  {
    name: 'name of 255 bytes',
    bare: true,
    make: (place) => {
      const path = join(place.at, 'n'.repeat(255));
      makeGood(path, place);
      return { path };
    },
  },
  {
    name: 'name of 256 bytes',
    bare: true,
    make: ({ at }) => ({ path: join(at, 'n'.repeat(256)) }),
  },
  {
    name: 'name that is not UTF-8',
    bare: true,
    shell: true,
    make: (place) => {
      const path = join(place.at, `N${BAD_BYTE}`);
      makeGood(path, place);
      return { path };
    },
  },
  {
    name: 'FIFO',
    make: ({ at }) => {
      const path = join(at, 'NAME');
      sh('mkfifo', path);
      return { path };
    },
  },
  {
    name: 'socket of nobody',
    make: async ({ at }) => {
      const path = join(at, 'NAME');
      const server = createServer();
      await new Promise<void>((resolve) => server.listen(`${path}.live`, resolve));
      // Closing a server removes its own name only.
      linkSync(`${path}.live`, path);
      await new Promise((resolve) => server.close(resolve));
      return { path };
    },
  },
  {
    name: 'socket of a server',
    make: async ({ at }) => {
      const path = join(at, 'NAME');
      const server = createServer((socket) => socket.destroy());
      await new Promise<void>((resolve) => server.listen(path, resolve));
      return {
        path,
        undo: () => new Promise<void>((resolve) => server.close(() => resolve())),
      };
    },
  },
  {
    name: '/dev/null',
    root: true,
    make: () => ({ path: '/dev/null', device: ['c', '1', '3'] }),
  },
];

/** Attaches a loop device to a file of its own. */
function attach(place: Place, bytes: Buffer, ...options: readonly string[]): Made {
  const stored = join(place.at, 'STORED');
  writeFileSync(stored, bytes);
  const { path, fd } = attachLoop(stored, ...options);
  const minor = path.replace('/dev/loop', '');
  return { path, device: ['b', '7', minor], undo: () => closeSync(fd) };
}

const DEVICE_SIZE = 1024 * 1024;

function deviceBytes(place: Place): Buffer {
  const bytes = Buffer.alloc(DEVICE_SIZE);
  goodBytes(place).copy(bytes);
  return bytes;
}

const DEVICES: readonly Kind[] = [
  { name: 'device', root: true, make: (place) => attach(place, deviceBytes(place)) },
  {
    name: 'read-only device',
    root: true,
    make: (place) => attach(place, deviceBytes(place), '--read-only'),
  },
  {
    name: 'mounted device',
    root: true,
    make: (place) => {
      const device = attach(place, Buffer.alloc(DEVICE_SIZE));
      sh('mke2fs', '-q', '-t', 'ext4', '-O', '^has_journal', device.path);
      const folder = join(place.work, 'MOUNT');
      mkdirSync(folder);
      // Nothing but the command may write to it: a file system that may be written does so at any time.
      sh('mount', '-o', 'ro', device.path, folder);
      const undo = () => {
        sh('umount', folder);
        return device.undo?.();
      };
      return { ...device, undo };
    },
  },
  {
    name: 'device that is not ready',
    root: true,
    make: (place) => attach(place, Buffer.alloc(0)),
  },
  {
    name: 'device without a driver',
    root: true,
    make: ({ at }) => {
      const path = join(at, 'NAME');
      // A number for local use, which no driver has.
      sh('mknod', path, 'b', '60', '77');
      return { path };
    },
  },
  {
    name: 'missing in /dev',
    root: true,
    bare: true,
    make: () => {
      const path = `/dev/lacuna-${process.pid}`;
      return { path, undo: () => rmSync(path, { force: true }) };
    },
  },
];

/** Makes the good thing under a tmpfs, and then fills it. */
function fill(place: Place, mount: string): Made {
  const path = join(place.at, 'NAME');
  sh('mount', '-t', 'tmpfs', '-o', 'size=2560k,mode=755', mount, place.at);
  makeGood(path, place);
  for (const name of place.role.near ?? []) {
    writeFileSync(
      join(place.at, name),
      goodBytes({ ...place, role: { ...place.role, good: name } }),
    );
  }
  try {
    writeFileSync(join(place.at, 'FILLER'), Buffer.alloc(4 * DEVICE_SIZE));
  } catch {
    // It is full now.
  }
  return { path, undo: () => void sh('umount', place.at) };
}

function goodAt(place: Place): string {
  const path = join(place.at, 'NAME');
  makeGood(path, place);
  return path;
}

/** The mode of what everybody may change. */
function openTo({ role }: Place): number {
  return role.good === 'folder' ? 0o777 : 0o666;
}

const RIGHTS: readonly Kind[] = [
  {
    name: 'file of another owner',
    root: true,
    make: (place) => {
      const path = goodAt(place);
      chownSync(path, 1234, 2345);
      chmodSync(path, 0o640);
      return { path };
    },
  },
  {
    name: 'file with an ACL',
    root: true,
    make: (place) => {
      const path = goodAt(place);
      chmodSync(path, 0o600);
      sh('setfacl', '-m', `u:${NOBODY}:rw`, path);
      return { path };
    },
  },
  {
    name: 'mount point',
    root: true,
    make: (place) => {
      const path = goodAt(place);
      sh('mount', '--bind', path, path);
      return { path, undo: () => void sh('umount', path) };
    },
  },
  {
    name: 'immutable file',
    root: true,
    make: (place) => {
      const path = goodAt(place);
      sh('chattr', '+i', path);
      return { path, undo: () => void sh('chattr', '-i', path) };
    },
  },
  {
    name: 'in an immutable folder',
    root: true,
    bare: true,
    make: (place) => {
      const path = goodAt(place);
      sh('chattr', '+i', place.at);
      return { path, undo: () => void sh('chattr', '-i', place.at) };
    },
  },
  {
    name: 'on a read-only file system',
    root: true,
    bare: true,
    make: (place) => {
      const path = goodAt(place);
      sh('mount', '--bind', place.at, place.at);
      sh('mount', '-o', 'remount,bind,ro', place.at);
      return { path, undo: () => void sh('umount', place.at) };
    },
  },
  { name: 'on a full disk', root: true, bare: true, make: (place) => fill(place, 'full') },
  {
    name: 'no permission for the file',
    root: true,
    nobody: true,
    make: (place) => {
      const path = goodAt(place);
      giveAway(place.at);
      chownSync(path, 0, 0);
      chmodSync(path, 0o600);
      return { path };
    },
  },
  {
    name: 'no permission for the folder',
    root: true,
    nobody: true,
    bare: true,
    make: (place) => {
      const path = goodAt(place);
      chmodSync(place.at, 0o700);
      return { path };
    },
  },
  {
    name: 'file that may be written in a folder that may not',
    root: true,
    nobody: true,
    bare: true,
    make: (place) => {
      const path = goodAt(place);
      giveAway(place.at);
      chownSync(place.at, 0, 0);
      return { path };
    },
  },
  {
    name: "another's file that may be written",
    root: true,
    nobody: true,
    make: (place) => {
      const path = goodAt(place);
      giveAway(place.at);
      chownSync(path, 0, 0);
      chmodSync(path, openTo(place));
      return { path };
    },
  },
  {
    name: "another's file in a sticky folder",
    root: true,
    nobody: true,
    make: (place) => {
      const path = goodAt(place);
      chmodSync(place.at, 0o1777);
      chmodSync(path, openTo(place));
      return { path };
    },
  },
];

export const KINDS: readonly Kind[] = [...SIMPLE, ...DEVICES, ...RIGHTS];
