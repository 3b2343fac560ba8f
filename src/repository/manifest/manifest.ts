/** The manifest of a restore point: what makes it exist. The schema beside this file checks it. */

/** How what a point holds of a disk was found. */
export type BackupMode = 'full' | 'bitmap' | 'digests' | 'given';

/** The file of leaves of an image. */
export interface LeavesState {
  /** The name of the file, without folders. */
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  /** Of everything before the digests. */
  readonly headSha256: string;
  /** Of the whole file. */
  readonly sha256: string;
}

/** An image of a disk. */
export interface ImageFile {
  /** The name of the file, without folders. */
  readonly name: string;
  /** Bytes of the file. */
  readonly size: number;
  /** Of the bytes of the file. */
  readonly digest: string;
  /** How its clusters are compressed; null where they are not. */
  readonly compression: 'deflate' | 'zstd' | null;
  /** The file with its digests. */
  readonly leaves: LeavesState;
}

/** An image that was that of a point which is gone. */
export interface GoneImage extends ImageFile {
  /** The number of that point. */
  readonly number: number;
}

/** An image, and over what it lies. */
export interface ImageState extends ImageFile {
  /** Number of the point below; null where nothing is. */
  readonly parent: number | null;
  /**
   * Images of points that are gone, between this one and the parent, the upper first: they are larger than what `prune`
   * would have saved by merging them.
   */
  readonly below?: readonly GoneImage[];
}

/** A disk of a restore point. */
export interface DiskManifest {
  /** What it is called in the repository. */
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  /** Of all that the disk holds; see docs/digest.md. */
  readonly digest: string;
  /** What was backed up, for people. */
  readonly source: string;
  /** How it was known what to take. */
  readonly mode: BackupMode;
  /** Why in this mode, for people. */
  readonly reason: string;
  /** Bytes that were stored as data. */
  readonly movedBytes: number;
  /** What a bitmap is called that counts from this point. */
  readonly bitmap: string;
  /** The image that holds it. */
  readonly file: ImageState;
  /** What `file` is going to be, while it is being replaced. */
  readonly replacement?: ImageState;
}

/** What makes a restore point exist. */
export interface Manifest {
  /** What this is. */
  readonly format: 'lacuna-point';
  /** Of the format. */
  readonly version: 1;
  /** Id of the repository. */
  readonly repository: string;
  /** The machine that it is of. */
  readonly machine: string;
  /** One more than that of the newest point before it. */
  readonly number: number;
  /** By chance; what a bitmap that counts from this point is named after. */
  readonly id: string;
  /** When the backup began, in ISO 8601. */
  readonly time: string;
  /** Milliseconds that the backup took. */
  readonly durationMs: number;
  /** Words to find it by, and to keep it by. */
  readonly tags: readonly string[];
  /** The versions of what wrote it. */
  readonly writer: { readonly lacuna: string; readonly node: string };
  /** Of the machine, as the caller gave it. */
  readonly configuration: unknown;
  /** All disks of the machine. */
  readonly disks: readonly DiskManifest[];
}

/** What the names of all bitmaps begin with that count from points of a repository. */
export function bitmapPrefix(repository: string): string {
  return `lacuna-${repository.slice(0, 8)}-`;
}

/**
 * The name of the bitmap of a disk that counts from a point: its generation, and the disk, because the bitmap says nothing
 * about what the point holds of another disk, should images be exchanged.
 */
export function bitmapName(repository: string, id: string, disk: string): string {
  return `${bitmapPrefix(repository)}${id}@${disk}`;
}
