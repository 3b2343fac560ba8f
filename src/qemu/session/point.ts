import type { PlannedDisk } from '../inspect/index.js';
import type { Journal } from '../state/index.js';

/** What a manifest must keep of a backup. */
export interface PointInTime {
  /** What the next increment begins from; absent for a copy, from which none can begin. */
  readonly generation?: string | undefined;
  /** The generation that the increments in this backup begin from. */
  readonly base?: string | undefined;
  /** By the clock of this host, ISO 8601. */
  readonly time: string;
  /** Whether the file systems of the guest were frozen at that moment. */
  readonly frozen: boolean;
  /** The disks, and of what kind the backup of each is. */
  readonly disks: readonly PointDisk[];
}

/** A disk in a manifest. */
export interface PointDisk {
  /** Its name. */
  readonly name: string;
  /** The device that the guest sees. */
  readonly qdev?: string | undefined;
  /** The file of its top layer. */
  readonly file: string;
  /** Bytes. */
  readonly size: number;
  /** All of it, or what has changed since the base. */
  readonly mode: 'full' | 'incremental';
  /** Why, in words. */
  readonly reason: string;
}

/** What is known of the point in time that a session has begun. */
export function pointOf(
  { generation, base }: Journal,
  plans: readonly PlannedDisk[],
  time: string,
  { hasFrozen }: { readonly hasFrozen: boolean },
): PointInTime {
  const isBuilt = plans.some(({ mode }) => mode === 'incremental');
  return {
    ...(generation !== undefined && { generation }),
    ...(isBuilt && base !== undefined && { base }),
    time,
    frozen: hasFrozen,
    disks: plans.map(({ disk: { name, qdev, file, size }, mode, reason }) => ({
      ...{ name, file, size, mode, reason },
      ...(qdev !== undefined && { qdev }),
    })),
  };
}
