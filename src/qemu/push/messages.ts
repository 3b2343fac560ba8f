import type { WireError } from '../../errors/index.js';

/** A disk that QEMU pushes, and the file that it lands in: as long as the disk, and without data. */
export interface LandingDisk {
  readonly file: string;
  /** Bytes. */
  readonly size: number;
}

/** What the process is told first. */
export interface LandingOrder {
  readonly order: 'serve';
  /** The socket that it serves at; disks are exports with their numbers as names. */
  readonly socket: string;
  readonly disks: readonly LandingDisk[];
  /** Bytes of data that may land at most, in all files together. */
  readonly mostBytes: number;
}

/** `settle`: say everything that has landed until now. `ping`: say that you run. */
export type Order = LandingOrder | { readonly order: 'settle' } | { readonly order: 'ping' };

/** The number of a disk, whether it is data or reads as zero, and the range. */
export type Landed = readonly [disk: number, isData: boolean, offset: number, length: number];

/** What the process says. */
export interface Said {
  readonly is: 'serving' | 'settled' | 'alive' | 'landed' | 'failed';
  /** To `landed`: in the order in which it was written. */
  readonly ranges?: readonly Landed[];
  /** To `failed`: why QEMU was refused a write, or why nothing is served. */
  readonly failure?: WireError;
}
