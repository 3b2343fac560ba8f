/** The good files that commands take, made once and copied for each run. */
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { runHere } from '../../support/run-here.js';
import { sh } from './place.js';

/** Bytes of every disk here. */
export const DISK_SIZE = 1024 * 1024;

const KIB = 1024;

/** A backing file's name that leaves room for every other one. */
const LONG_NAME = 'x'.repeat(1023);

export type Material =
  | 'source.raw'
  | 'old.raw'
  | 'base.raw'
  | 'same.raw'
  | 'disk.qcow2'
  | 'overlay.qcow2'
  | 'over.qcow2'
  | 'disk.bitmaps'
  | 'disk.digest'
  | 'rate'
  | 'text'
  | 'cert.pem'
  | 'key.pem'
  | 'keys.psk';

export class Materials {
  readonly #folder: string;
  readonly #names = new Map<string, string>();

  private constructor(folder: string) {
    this.#folder = folder;
  }

  /** Makes all of them in a new folder. */
  static async make(folder: string): Promise<Materials> {
    mkdirSync(folder);
    const materials = new Materials(folder);
    materials.#makeDisks();
    materials.#makeImages();
    await materials.#makeSideFiles();
    materials.#makeKeys();
    for (const name of ['source.raw', 'old.raw', 'disk.qcow2', 'overlay.qcow2'] as const) {
      materials.#names.set(digestOf(readFileSync(materials.path(name))), name);
    }
    return materials;
  }

  path(name: Material): string {
    return join(this.#folder, name);
  }

  /** The name of the material that has these bytes. */
  nameOf(digest: string): string | undefined {
    return this.#names.get(digest);
  }

  #makeDisks(): void {
    const disk = (
      name: Material,
      runs: readonly [offset: number, length: number, byte: number][],
    ) => {
      const bytes = Buffer.alloc(DISK_SIZE);
      for (const [offset, length, byte] of runs) bytes.fill(byte, offset, offset + length);
      writeFileSync(this.path(name), bytes);
    };
    disk('source.raw', [
      [0, 128 * KIB, 0x11],
      [960 * KIB, 64 * KIB, 0x22],
    ]);
    disk('old.raw', [[0, 192 * KIB, 0x33]]);
    for (const name of ['base.raw', 'same.raw'] as const) disk(name, [[64 * KIB, 64 * KIB, 0x44]]);
  }

  #makeImages(): void {
    const disk = this.path('disk.qcow2');
    const small = ['-o', 'cluster_size=4k'];
    sh('qemu-img', 'convert', '-O', 'qcow2', ...small, '-f', 'raw', this.path('source.raw'), disk);
    for (const name of ['b0', 'b1']) sh('qemu-img', 'bitmap', '--add', '-g', '64k', disk, name);
    sh('qemu-io', '-f', 'qcow2', '-c', 'write -q -P 0x55 256k 64k', disk);
    this.#makeOverlay('overlay.qcow2', 'base.raw');
    this.#makeOverlay('over.qcow2', LONG_NAME);
    const overlay = this.path('overlay.qcow2');
    sh('qemu-io', '-f', 'qcow2', '-c', 'write -q -P 0x66 512k 64k', overlay);
    sh('qemu-img', 'bitmap', '--add', '-g', '64k', overlay, 'b0');
  }

  #makeOverlay(name: Material, backing: string): void {
    const how = ['-u', '-b', backing, '-F', 'raw', '-o', 'cluster_size=4k'];
    sh('qemu-img', 'create', '-q', '-f', 'qcow2', ...how, this.path(name), `${DISK_SIZE}`);
  }

  async #makeSideFiles(): Promise<void> {
    const source = this.path('source.raw');
    await lacuna('populate', source, '--output', this.path('disk.bitmaps'));
    const copied = this.path('text');
    await lacuna('copy', '--digest-file', this.path('disk.digest'), source, copied);
    writeFileSync(this.path('rate'), '1G\n');
    writeFileSync(copied, 'This is something else.\n');
    truncateSync(copied, 24);
  }

  #makeKeys(): void {
    const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
    sh(
      'openssl',
      ...['req', '-x509', ...key, '-days', '2', '-subj', '/CN=localhost'],
      ...['-addext', 'subjectAltName=DNS:localhost'],
      ...['-keyout', this.path('key.pem'), '-out', this.path('cert.pem')],
    );
    writeFileSync(this.path('keys.psk'), `alice:${'ab'.repeat(32)}\n`);
  }
}

/** `over.qcow2` with another name for its backing file: offset and length of the name are in the header. */
export function withBackingName(image: Buffer, name: Buffer): Buffer {
  const copy = Buffer.from(image);
  name.copy(copy, Number(copy.readBigUInt64BE(8)));
  copy.writeUInt32BE(name.length, 16);
  return copy;
}

export function digestOf(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex').slice(0, 16);
}

async function lacuna(...args: readonly string[]): Promise<void> {
  const { code, stderr } = await runHere(args);
  if (code !== 0) throw new Error(`lacuna ${args.join(' ')}: ${stderr}`);
}
