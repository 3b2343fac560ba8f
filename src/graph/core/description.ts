import type { DeviceDescription } from '../../block/index.js';
import type {
  CopyBeforeWriteDescription,
  CopyOnReadDescription,
  SnapshotAccessDescription,
} from '../filters/index.js';

/** A description in which each device below may be the name of a node instead. */
export type WithNames<D> = D extends DeviceDescription
  ? {
      [K in keyof D]: Extract<D[K], DeviceDescription> extends never
        ? D[K]
        : Exclude<D[K], DeviceDescription> | NodeDescription | string;
    } & {
      /** What the node is called; no other node, export or job of the graph may have the name. */
      'node-name'?: string;
    }
  : never;

/**
 * How a node is made: the description of a device as everywhere, with QEMU's `node-name`. What lies below it is described
 * inside, and becomes a node too, or is the name of a node that is there.
 */
export type NodeDescription =
  | WithNames<DeviceDescription>
  | ((CopyBeforeWriteDescription | CopyOnReadDescription | SnapshotAccessDescription) & {
      'node-name'?: string;
    });

/** A description without the device below it. */
export type WithoutFile<D> = D extends { file: unknown } ? Omit<D, 'file'> : never;

/** The description of a filter whose place in a graph is said elsewhere. */
export type FilterNodeDescription = WithoutFile<Extract<NodeDescription, { file: unknown }>>;
