/** Publishes each request of a device when it has ended: `node:diagnostics_channel`, see docs/diagnostics.md. */
import { channel } from 'node:diagnostics_channel';
import type { BlockDevice } from './block-device.js';

/** What a device was asked. `status` is a question for extents, `copy` a copy that the system makes by itself. */
export type DeviceOperation = 'read' | 'write' | 'zero' | 'discard' | 'flush' | 'status' | 'copy';

/** The message of the channel `lacuna:device:request`: a request that has ended, well or not. */
export interface DeviceRequestMessage {
  /** The device that was asked. */
  readonly device: BlockDevice;
  /** The name of the node of a graph that it is the device of; undefined for other devices. */
  readonly node: string | undefined;
  /** What it was asked. */
  readonly operation: DeviceOperation;
  /** Bytes; 0 for a flush. */
  readonly offset: number;
  /** Bytes; 0 for a flush. */
  readonly length: number;
  /** Milliseconds from the call to the end of the request. */
  readonly durationMs: number;
  /** Why it has failed; absent where it has not. */
  readonly error?: unknown;
}

/** What is told of a request beside how it went. */
export type ToldRequest = Pick<
  DeviceRequestMessage,
  'device' | 'node' | 'operation' | 'offset' | 'length'
>;

/** Ask `hasSubscribers` once for each request, and make nothing where nobody listens. */
export const deviceRequests = channel('lacuna:device:request');

/** Tells of a request that began at a time of `performance.now()`, and has ended now. */
export function tellRequest(
  { device, node, operation, offset, length }: ToldRequest,
  begun: number,
): void {
  const durationMs = performance.now() - begun;
  deviceRequests.publish({ device, node, operation, offset, length, durationMs });
}

/** The same for one that has failed. */
export function tellFailure(asked: ToldRequest, begun: number, error: unknown): void {
  const durationMs = performance.now() - begun;
  deviceRequests.publish({ ...asked, durationMs, error });
}
