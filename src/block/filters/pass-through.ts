import type { BlockDevice, DeviceDescription, Driver } from '../contract/index.js';

/** What every filter says in a description. */
export interface FilterDescription {
  /** The device that it lies above. */
  file: DeviceDescription;
}

/** A request before it is passed on. */
export interface FilteredRequest {
  readonly operation: Operation;
  /** First byte; 0 for a flush. */
  readonly offset: number;
  /** Bytes; 0 for a flush. */
  readonly length: number;
  readonly signal?: AbortSignal | undefined;
}

/** What a filter may be told to look at. */
export const OPERATIONS = ['read', 'write', 'zero', 'discard', 'flush', 'status'] as const;

/** A kind of request. */
export type Operation = (typeof OPERATIONS)[number];

/** What a filter does with each request: before it, after it, or in its place. */
export type Around = <T>(request: FilteredRequest, pass: () => Promise<T>) => Promise<T>;

/**
 * A driver that passes every request on to a device below it, through one function. It neither tells where bytes lie nor
 * copies inside the system: both would go around the filter.
 *
 * @param description as it was opened; a second opening is made from it.
 * @param close closes the device below, and what else the filter holds.
 */
export function passThrough(
  child: BlockDevice,
  around: Around,
  description?: DeviceDescription,
  close: () => Promise<void> = () => child.close(),
): Driver {
  return {
    name: child.name,
    ...(description !== undefined && { description }),
    ...(child.path !== undefined && { path: child.path }),
    size: child.size,
    get end() {
      return child.end;
    },
    // Threads that share a device plan by its units, or two of them would change one at the same time.
    limits: child.limits,
    capabilities: child.capabilities,
    ...(child.details !== undefined && { details: child.details }),
    warnings: child.warnings,
    missing: child.missing,
    read: (offset, target, signal) =>
      around({ operation: 'read', offset, length: target.byteLength, signal }, () =>
        child.read(offset, target, { ...(signal && { signal }) }),
      ),
    write: (offset, source, options) =>
      around(
        { operation: 'write', offset, length: source.byteLength, signal: options.signal },
        () => child.write(offset, source, options),
      ),
    zero: (offset, length, options) =>
      around({ operation: 'zero', offset, length, signal: options.signal }, () =>
        child.zero(offset, length, options),
      ),
    discard: (offset, length, signal) =>
      around({ operation: 'discard', offset, length, signal }, () =>
        child.discard(offset, length, { ...(signal && { signal }) }),
      ),
    flush: (signal) =>
      around({ operation: 'flush', offset: 0, length: 0, signal }, () =>
        child.flush({ ...(signal && { signal }) }),
      ),
    extents: (offset, length, contexts, signal) =>
      around({ operation: 'status', offset, length, signal }, () =>
        child.someExtents(offset, length, { contexts, ...(signal && { signal }) }),
      ),
    writesAgain: () => child.writesAgain?.(),
    get forgotten() {
      return child.forgotten;
    },
    close,
  };
}
