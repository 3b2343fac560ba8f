import {
  type CommonDescription,
  type CopyMode,
  type DeviceDescription,
  type Driver,
  type DriverKind,
  flag,
  oneOf,
  passThrough,
  timeout,
} from '../../block/index.js';
import type { DetectZeroes } from '../../copy/index.js';
import { DISK_AND_TARGET, type DiskAndTarget, openBoth } from './disk-and-target.js';
import { granularityFor } from './granularity.js';
import { MirroredDisk } from './mirrored-disk.js';

/** The disk as it is; its job copies it to a target, and what is written meanwhile too. */
export interface MirrorDescription extends CommonDescription {
  /** Keeps a copy of a disk up to date. Only a job has one. */
  driver: 'mirror';
  /** The disk. */
  file: DeviceDescription | string;
  /** Its copy: at least as large, and nobody else's. */
  target: DeviceDescription | string;
  /** Whether a write is copied later, or is made on both sides at the same time. Default `background`. */
  'copy-mode'?: CopyMode;
  /** The target reads as zero. Default false. */
  'target-is-zero'?: boolean;
  /** Data that is nothing but zeroes is zeroed in the target, with `unmap` as a hole. Default `off`. */
  'detect-zeroes'?: DetectZeroes;
  /** For so many seconds a write of a guest waits for the target; 0: no limit. Default 5. */
  'write-timeout'?: number;
}

const WRITE_TIMEOUT = 5;

export const mirror: DriverKind<MirrorDescription> = {
  keys: {
    ...DISK_AND_TARGET,
    'copy-mode': { read: oneOf('background', 'write-blocking') },
    'target-is-zero': { read: flag },
    'detect-zeroes': { read: oneOf('off', 'on', 'unmap') },
    'write-timeout': { read: timeout },
  },
  isFilter: true,
  open: async (wanted, opening) =>
    driverOver(await openBoth(wanted, opening, 'a mirror of'), wanted),
};

function driverOver(devices: DiskAndTarget, wanted: MirrorDescription): Driver {
  const { disk, target } = devices;
  const copy = new MirroredDisk(devices, {
    mode: wanted['copy-mode'] ?? 'background',
    granularity: granularityFor(target),
    targetIsZero: wanted['target-is-zero'] ?? false,
    detectZeroes: wanted['detect-zeroes'] ?? 'off',
    limitMs: (wanted['write-timeout'] ?? WRITE_TIMEOUT) * 1000,
  });
  const pass = passThrough(
    disk,
    (_request, pass) => pass(),
    undefined,
    () => copy.close(),
  );
  return Object.assign(pass, changesOf(copy, devices), {
    diskCopy: copy,
    firstUsed: () => copy.begin(),
    settled: async () => void (await copy.idle),
    contentChanged: () => copy.setAllDirty(),
  });
}

/** Signals stay here: a change whose caller has given up would end behind the note that it is dirty. */
function changesOf(
  copy: MirroredDisk,
  { disk, target }: DiskAndTarget,
): Pick<Driver, 'write' | 'zero' | 'discard'> {
  return {
    write: (offset, source, { fua = false, unrecorded = false }) =>
      copy.change({
        offset,
        length: source.byteLength,
        onDisk: () => disk.write(offset, source, { fua, unrecorded }),
        // A guest that does not wait any more uses its memory for something else.
        onTarget: async () =>
          target.write(offset, new Uint8Array(source), { unrecorded: !copy.isRecorded }),
      }),
    zero: (offset, length, { unmap = true, fast = false, fua = false, unrecorded = false }) =>
      copy.change({
        offset,
        length,
        onDisk: () => disk.zero(offset, length, { unmap, fast, fua, unrecorded }),
        onTarget: () => target.zero(offset, length, { unmap, unrecorded: !copy.isRecorded }),
        mayBeRefused: fast,
      }),
    discard: (offset, length) =>
      copy.change({ offset, length, onDisk: () => disk.discard(offset, length) }),
  };
}
