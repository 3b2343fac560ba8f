/** Publishes each request of a client when it has ended: `node:diagnostics_channel`, see docs/diagnostics.md. */
import { channel } from 'node:diagnostics_channel';
import { Command, type ErrnoName } from '../../wire/index.js';
import type { NbdExportDevice } from '../export/index.js';
import type { ServerRequest } from './request.js';

/** A command of the protocol; `other` for one that is not known. */
export type NbdOperation =
  | 'read'
  | 'write'
  | 'zero'
  | 'discard'
  | 'flush'
  | 'cache'
  | 'status'
  | 'other';

/** The message of the channel `lacuna:nbd-server:request`: a request of a client that has ended, well or not. */
export interface NbdRequestMessage {
  /** The name of the export. */
  readonly export: string;
  /** What is served there. */
  readonly device: NbdExportDevice;
  /** The number of the client, as `lacuna:nbd-server:client` has told it. */
  readonly client: number;
  /** What it has asked. */
  readonly operation: NbdOperation;
  /** Bytes. */
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
  /** Milliseconds from the request's last byte to the moment when its answer waits to be sent. */
  readonly durationMs: number;
  /** The error that the client was answered, as NBD names it; absent where there was none. */
  readonly errno?: string;
}

const OPERATIONS: Readonly<Record<number, NbdOperation>> = {
  [Command.read]: 'read',
  [Command.write]: 'write',
  [Command.writeZeroes]: 'zero',
  [Command.trim]: 'discard',
  [Command.flush]: 'flush',
  [Command.cache]: 'cache',
  [Command.blockStatus]: 'status',
};

const requests = channel('lacuna:nbd-server:request');

/** Whether anybody listens: asked once for each request. */
export function isToldOf(): boolean {
  return requests.hasSubscribers;
}

/** Who asked, and where. */
export type Asker = Pick<NbdRequestMessage, 'export' | 'device' | 'client'>;

/** A request that has begun; returns what tells of its end. */
export function toldRequest(
  asker: Asker,
  { command, offset, length }: Pick<ServerRequest, 'command' | 'offset' | 'length'>,
): (errno?: ErrnoName) => void {
  const begun = performance.now();
  return (errno) => {
    const message: NbdRequestMessage = {
      ...asker,
      operation: OPERATIONS[command] ?? 'other',
      offset,
      length,
      durationMs: performance.now() - begun,
      ...(errno !== undefined && { errno }),
    };
    requests.publish(message);
  };
}
