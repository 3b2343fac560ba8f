/** What the lines of a trace hold: the fields of the messages, without what is no JSON. */
import type { DeviceRequestMessage } from '../../block/index.js';
import type { JobMessage } from '../../job/index.js';
import type { NbdClientMessage, NbdRequestMessage } from '../../nbd/index.js';

export function requestLine(message: DeviceRequestMessage): object {
  const { node, operation, offset, length, durationMs, error } = message;
  return {
    channel: 'lacuna:device:request',
    ...{ node, operation, offset, length, durationMs },
    ...(error !== undefined && { error: textOf(error) }),
  };
}

export function nbdRequestLine(message: NbdRequestMessage): object {
  const { device: _, ...fields } = message;
  return { channel: 'lacuna:nbd-server:request', ...fields };
}

export function nbdClientLine(message: NbdClientMessage): object {
  const { device: _, ...fields } = message;
  return { channel: 'lacuna:nbd-server:client', ...fields };
}

export function jobLine({ job, what, event, error }: JobMessage): object {
  const { state, totalBytes, doneBytes } = event === 'begun' ? NOT_YET : job.progress();
  return {
    channel: 'lacuna:job',
    ...{ what, event, state, totalBytes, doneBytes },
    ...(error !== undefined && { error: textOf(error) }),
  };
}

/** When a job has begun, the part that counts may not be there yet. */
const NOT_YET = { state: 'running', totalBytes: 0, doneBytes: 0 } as const;

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
