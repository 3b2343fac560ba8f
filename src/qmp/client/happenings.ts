/** The events that are used here, with what is read of each. See qapi/block-core.json and job.json of QEMU. */
import { integer, members, optional, type Reader, text } from '../wire/index.js';
import type { ReceivedEvent } from './event-stream.js';

/** What belongs to the events whose content is checked. */
export interface QmpEventData {
  /** A job has gone into another state. */
  JOB_STATUS_CHANGE: {
    /** The job. */
    readonly id: string;
    /** Its state from now on. */
    readonly status: string;
  };
  /** A block job has done its work, or has failed. */
  BLOCK_JOB_COMPLETED: {
    /** The job. */
    readonly device: string;
    /** Why it has failed. */
    readonly error?: string | undefined;
  };
  /** A block job was cancelled. */
  BLOCK_JOB_CANCELLED: {
    /** The job. */
    readonly device: string;
  };
  /** A request of a block job has failed. */
  BLOCK_JOB_ERROR: {
    /** The job. */
    readonly device: string;
    /** `read` or `write`. */
    readonly operation: string;
  };
  /** An export is gone, and its name and node are free. */
  BLOCK_EXPORT_DELETED: {
    /** The export. */
    readonly id: string;
  };
  /** A node was written behind the offset that was set. */
  BLOCK_WRITE_THRESHOLD: {
    /** The node. */
    readonly 'node-name': string;
    /** Bytes behind it. */
    readonly 'amount-exceeded': number;
  };
}

/** An event whose content was checked. */
export type TypedEvent<K extends keyof QmpEventData> = {
  [N in K]: ReceivedEvent & {
    /** Its name. */
    readonly event: N;
    /** What belongs to it. */
    readonly data: QmpEventData[N];
  };
}[K];

const READERS: { readonly [K in keyof QmpEventData]: Reader<QmpEventData[K]> } = {
  JOB_STATUS_CHANGE: members({ id: text, status: text }),
  BLOCK_JOB_COMPLETED: members({ device: text, error: optional(text) }),
  BLOCK_JOB_CANCELLED: members({ device: text }),
  BLOCK_JOB_ERROR: members({ device: text, operation: text }),
  BLOCK_EXPORT_DELETED: members({ id: text }),
  BLOCK_WRITE_THRESHOLD: members({ 'node-name': text, 'amount-exceeded': integer }),
};

/**
 * Checks what belongs to an event, where that is known.
 *
 * @throws LacunaError ERR_QMP_PROTOCOL
 */
export function checkEvent(event: string, data: unknown): void {
  if (Object.hasOwn(READERS, event)) READERS[event as keyof QmpEventData](data, event);
}
