/** A machine `m` with one disk `vda` at rest, and the repository that it is backed up to. */
import { join } from 'node:path';
import { expect } from 'vitest';
import { type BackupReport, type Manifest, Repository } from '#dist/repository/index.js';
import { change, hashOf, hashOfFile, imageOf, KiB, makeImage } from './repository.js';

let made = 0;

export class OneDisk {
  readonly disk: string;
  readonly path: string;
  readonly repository: Repository;
  readonly #folder: string;
  #days = 0;

  /** @param options of the repository */
  constructor(folder: string, size: number, options: { smallImage?: number } = {}) {
    const name = `${++made}`;
    this.#folder = folder;
    this.disk = join(folder, `${name}.qcow2`);
    this.path = join(folder, `repository-${name}`);
    makeImage(this.disk, size);
    this.repository = Repository.openWith(this.path, { create: true, ...options });
  }

  async backUp(full = false): Promise<BackupReport> {
    const disks = [{ name: 'vda', source: this.disk }];
    return await this.repository.backup({ machine: 'm', disks, full });
  }

  /** Changes a little, in another place each time, and backs it up. */
  async day({ bytes = 64 * KiB, full = false } = {}): Promise<BackupReport> {
    const offset = ++this.#days * 256 * KiB;
    const data = Buffer.alloc(bytes, 1 + this.#days);
    await change(this.disk, (device) => device.write(offset, data));
    return await this.backUp(full);
  }

  /** A point holds what the hash says, restored by us and read by QEMU; the point. */
  async expectPoint(number: number, hash: string): Promise<Manifest> {
    const target = join(this.#folder, 'restored.raw');
    const disks = [{ name: 'vda', target }];
    const { point } = await this.repository.restore({ point: number, disks });
    expect(hashOfFile(target)).toBe(hash);
    expect(hashOf(imageOf(this.repository, point, 'vda'), this.#folder)).toBe(hash);
    return point;
  }
}
