/** Serves the disks of a point over NBD: as they were, or with an overlay that takes what is written. */
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import {
  type BlockDevice,
  createQcow2,
  type FileDescription,
  openDevice,
} from '../../block/index.js';
import { LacunaError } from '../../errors/index.js';
import type { NbdServer } from '../../nbd/index.js';
import { createServer, type ServeOptions } from '../../serve/index.js';
import { optionCheck } from '../../util/index.js';
import { checkedDevice, describeLayers, OpenDisk } from '../disks/index.js';
import { hold, Lock } from '../lock/index.js';
import type { Manifest } from '../manifest/index.js';
import { type PointName, selectPoint } from '../points/index.js';
import type { Store } from '../store/index.js';

/** What is served, and how. */
export interface ServePointOptions {
  /** The machine; it need not be said where there is one alone, or the point says it. */
  readonly machine?: string | undefined;
  /** A number, `latest`, or a time. */
  readonly point: PointName;
  /** Only these disks. Default: all. */
  readonly disks?: readonly string[] | undefined;
  /**
   * Let clients write. `discard` throws away what they have written when the server is closed; a folder gets an overlay for each
   * disk, `NAME.qcow2`, which is used again the next time. Until it is removed, `prune` leaves its point alone.
   */
  readonly overlay?: 'discard' | { readonly folder: string } | undefined;
  /** Of the server: TLS, limits, what is told of failures. */
  readonly server?: Omit<ServeOptions, 'exports' | 'threads'> | undefined;
}

const check = optionCheck<ServePointOptions>({
  machine: 'any',
  point: { needed: 'a number, "latest", or a time' },
  disks: 'any',
  overlay: 'any',
  server: 'any',
});

/** A point that is being served. Each disk is an export of its name; a disk alone is the default export too. */
export class ServedPoint implements AsyncDisposable {
  /** The point. */
  readonly point: Manifest;
  /** The names of the disks. */
  readonly disks: readonly string[];
  /** Call `listen` to let clients in. */
  readonly server: NbdServer;
  readonly #close: () => Promise<void>;

  /** @internal */
  constructor(parts: Pick<ServedPoint, 'point' | 'disks' | 'server'> & { close(): Promise<void> }) {
    this.point = parts.point;
    this.disks = parts.disks;
    this.server = parts.server;
    this.#close = parts.close;
  }

  /** Ends the server, closes the disks, and lets go of the lock. */
  close(): Promise<void> {
    return this.#close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** @throws what {@link Repository.serve} says. */
export async function serve(store: Store, options: ServePointOptions): Promise<ServedPoint> {
  check('serve', options);
  const { machine } = selectPoint(store, options.point, options.machine).points;
  const lock = Lock.take(store.places(machine), 'read', 'serve', store.operations);
  const closing: (() => void | Promise<void>)[] = [() => lock.release()];
  const close = async () => {
    for (const step of closing.splice(0).reverse()) await step();
  };
  try {
    const { points, manifest } = selectPoint(store, options.point, options.machine);
    const names = options.disks ?? manifest.disks.map(({ name }) => name);
    const folder = folderOf(options, closing);
    const devices: { name: string; device: BlockDevice }[] = [];
    for (const name of names) {
      const disk = await OpenDisk.open(points, manifest.number, name);
      closing.push(() => disk.close());
      const device =
        folder === undefined ? checkedDevice(disk) : await overlayOf(store, disk, folder);
      closing.push(() => device.close());
      devices.push({ name, device });
    }
    const exports = devices.length === 1 ? [...devices, { ...devices[0], name: '' }] : devices;
    const server = await createServer({ ...options.server, exports, threads: 0 });
    closing.push(() => server.close());
    return new ServedPoint({ point: manifest, disks: names, server, close });
  } catch (error) {
    await close();
    throw error;
  }
}

interface Overlays {
  readonly path: string;
  readonly isKept: boolean;
}

function folderOf({ overlay }: ServePointOptions, closing: (() => void)[]): Overlays | undefined {
  if (overlay === undefined) return undefined;
  if (overlay !== 'discard') return { path: resolve(overlay.folder), isKept: true };
  const path = fs.mkdtempSync(join(tmpdir(), 'lacuna-overlay-'));
  closing.push(() => fs.rmSync(path, { recursive: true, force: true }));
  return { path, isKept: false };
}

/** The disk with an image above it; what that does not hold is read of the point. */
async function overlayOf(
  { operations }: Store,
  disk: OpenDisk,
  { path: folder, isKept }: Overlays,
): Promise<BlockDevice> {
  const { name, number, layers, points, device } = disk;
  const filename = join(folder, `${name}.qcow2`);
  const backing = { filename: layers[0].path, format: 'qcow2' };
  const file = { driver: 'file', filename } as const;
  const isThere = fs.existsSync(filename);
  if (isThere) await checkOverlay(file, backing.filename);
  if (isKept) hold(points.places, { number, overlay: filename }, operations);
  if (!isThere) {
    await createQcow2(filename, { size: device.size, backing, exclusive: true, mode: 0o600 });
  }
  const below = describeLayers(layers);
  return await openDevice({ driver: 'qcow2', file, backing: below }, { writable: true });
}

/** Throws unless an image that is there lies over the image of the point. */
async function checkOverlay(file: FileDescription, wanted: string): Promise<void> {
  await using image = await openDevice({ driver: 'qcow2', file, backing: null });
  const found = image.details?.backingFile;
  if (found === wanted) return;
  const { filename } = file;
  const over = found === undefined ? 'has no backing file' : `lies over ${found}`;
  const message = `${filename} is there, and ${over}, where ${wanted} was expected: name another folder, or remove it`;
  throw new LacunaError('ERR_IMAGE_CHAIN', message, { device: filename });
}
