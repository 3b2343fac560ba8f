import {
  type BlockDevice,
  type CommonDescription,
  type DeviceDescription,
  type Driver,
  type DriverKind,
  description,
  type SnapshotSource,
} from '../../block/index.js';
import { LacunaError } from '../../errors/index.js';

/** Shows what a disk was when a `copy-before-write` came into use above it. */
export interface SnapshotAccessDescription extends CommonDescription {
  /** Shows what a copy-before-write keeps. */
  driver: 'snapshot-access';
  /** The `copy-before-write`. */
  file: DeviceDescription | string;
}

const GIB = 1024 ** 3;

/**
 * The disk of that moment. Discarding a range gives its copy back, where it is open for writing; it can not be read any more then.
 * Nothing else changes it.
 */
export const snapshotAccess: DriverKind<SnapshotAccessDescription> = {
  keys: { file: { read: description, required: true } },
  open: async ({ file, 'read-only': readOnly = false }, opening) => {
    const child = await opening.open(file as DeviceDescription, {
      ...opening,
      as: { key: 'file', role: 'snapshot' },
    });
    if (child.snapshot === undefined) throw keepsNothing(child);
    return driverOver(child, child.snapshot, !readOnly);
  },
};

function driverOver(child: BlockDevice, source: SnapshotSource, writable: boolean): Driver {
  const { size, granularity } = source;
  const refuse = async () => {
    const message = `what ${child.name} was does not change: only discards are for it`;
    throw new LacunaError('ERR_DEVICE_UNSUPPORTED', message, { device: child.name });
  };
  return {
    name: child.name,
    size,
    limits: {
      minimum: 1,
      preferred: granularity,
      maximum: GIB,
      maximumZero: GIB,
      zeroAlignment: granularity,
      discardAlignment: granularity,
    },
    capabilities: { write: writable, discard: true, contexts: source.contexts },
    read: (offset, target, signal) => source.read(offset, target, signal),
    write: refuse,
    discard: (offset, length) => source.giveBack(offset, length),
    extents: (offset, length, contexts, signal) => source.extents(offset, length, contexts, signal),
    close: async () => {},
  };
}

function keepsNothing({ name }: BlockDevice): LacunaError {
  const message = `${name} keeps nothing of what it was: file of snapshot-access must be a copy-before-write`;
  return new LacunaError('ERR_GRAPH_CONFLICT', message, { device: name });
}
