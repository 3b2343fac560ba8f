/** A replica while it is mirrored to: its device, the server that QEMU writes to, and how far all of it is durable. */
import fs from 'node:fs';
import {
  type BlockDevice,
  type DeviceDescription,
  filesOf,
  openDevice,
  parseDescription,
} from '../../block/index.js';
import type { NbdServer, NbdServerAddress } from '../../nbd/index.js';
import { createServer } from '../../serve/index.js';
import { Serial } from '../../util/index.js';
import type { MirrorOptions } from './options.js';
import type { Durable } from './replica-state.js';
import { TwoWriters } from './two-writers.js';

const EXPORT = 'replica';

/** The file of a replica, and that of its state. */
export interface ReplicaPlaces {
  readonly description: DeviceDescription;
  /** The file that it lies in; undefined where that is none. */
  readonly file: string | undefined;
  readonly state: string;
}

/** @throws TypeError where nobody says where the state is kept */
export function placesOf({ target, state }: MirrorOptions): ReplicaPlaces {
  const description = typeof target === 'string' ? parseDescription(target) : target;
  const [path] = filesOf(description);
  const isFile = path !== undefined && fs.statSync(path, { throwIfNoEntry: false })?.isFile();
  const file = isFile ? path : undefined;
  if (state !== undefined) return { description, file, state };
  if (path !== undefined && !path.startsWith('/dev/'))
    return { description, file, state: `${path}.replica` };
  throw new TypeError(
    'the replica is no file, so say which file keeps its state (state), the same each time',
  );
}

export class ReplicaTarget {
  readonly device: BlockDevice;
  readonly writers: TwoWriters;
  readonly #server: NbdServer;
  readonly #flushing = new Serial();
  #address: NbdServerAddress | undefined;
  #durable: Durable | undefined;
  #timer: NodeJS.Timeout | undefined;
  #isClosed = false;

  static async open({ description }: ReplicaPlaces, signal: AbortSignal): Promise<ReplicaTarget> {
    const device = await openDevice(description, { writable: true, signal });
    const writers = new TwoWriters(device);
    const exports = [{ name: EXPORT, device: writers.mirrorSide as BlockDevice }];
    return new ReplicaTarget(device, writers, await createServer({ exports, threads: 0 }));
  }

  private constructor(device: BlockDevice, writers: TwoWriters, server: NbdServer) {
    this.device = device;
    this.writers = writers;
    this.#server = server;
  }

  async listen(where: NbdServerAddress): Promise<void> {
    this.#address = await this.#server.listen(where);
  }

  /** How QEMU opens it. */
  get node(): object {
    const address = this.#address!;
    // QEMU has the numbers of ports as strings.
    const server = 'port' in address ? { ...address, port: String(address.port) } : address;
    return { driver: 'nbd', server, export: EXPORT, discard: 'unmap' };
  }

  /** How far it is durable. */
  get durable(): Durable | undefined {
    return this.#durable;
  }

  /** Makes it durable now and then, as QEMU never does before the end. */
  flushEvery(ms: number, told: () => Promise<void>, failed: (error: unknown) => void): void {
    const next = () => {
      this.#timer = setTimeout(async () => {
        try {
          if (this.writers.writes > (this.#durable?.writes ?? 0)) {
            await this.flush();
            await told();
          }
          if (!this.#isClosed) next();
        } catch (error) {
          if (!this.#isClosed) failed(error);
        }
      }, ms);
    };
    next();
  }

  /** Makes durable what has been written until now. */
  flush(): Promise<void> {
    return this.#flushing.run(async () => {
      const { writes, bytes } = this.writers;
      await this.device.flush();
      this.#durable = { writes, bytes, at: new Date().toISOString() };
    });
  }

  /** Ends the server, then the device; closing again is harmless. */
  async close(): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    await this.#server.close();
    await this.#flushing.run(async () => {});
    this.writers.endBase();
    await this.device.close();
  }
}
