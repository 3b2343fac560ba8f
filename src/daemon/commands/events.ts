import { JOB_STATUSES, JOB_TYPES } from '../core/index.js';
import { event, flag, optional, size, text, word } from '../schema/index.js';

const jobType = word('JobType', ...JOB_TYPES);
const block = { type: jobType, device: text, len: size, offset: size, speed: size };

/** What clients are told without asking. */
export const EVENTS = [
  event('JOB_STATUS_CHANGE', 'A job has come into another state.', {
    id: text,
    status: word('JobStatus', ...JOB_STATUSES),
  }),
  event('BLOCK_JOB_READY', 'The target of a mirror or commit has caught up.', block),
  event('BLOCK_JOB_PENDING', 'A job has done its work, and waits for job-finalize.', {
    type: jobType,
    id: text,
  }),
  event('BLOCK_JOB_COMPLETED', 'A job has ended; with an error, where it has failed.', {
    ...block,
    error: optional(text),
  }),
  event('BLOCK_JOB_CANCELLED', 'A job was ended early.', block),
  event('BLOCK_JOB_ERROR', 'A job waits for a human because of an error.', {
    device: text,
    operation: word('IoOperationType', 'read', 'write'),
    action: word('BlockErrorAction', 'ignore', 'report', 'stop'),
  }),
  event(
    'JOB_END_REFUSED',
    'A job cannot end as it was told to, and goes on. QEMU has no such event.',
    {
      id: text,
      error: text,
    },
  ),
  event('BLOCK_EXPORT_DELETED', 'An export is gone.', { id: text }),
  event(
    'BLOCK_WRITE_THRESHOLD',
    'The file of an image has grown beyond its threshold, which is gone then.',
    {
      'node-name': text,
      'amount-exceeded': size,
      'write-threshold': size,
    },
  ),
  event('SHUTDOWN', 'The daemon ends.', {
    guest: flag,
    reason: word('ShutdownCause', 'host-qmp-quit', 'host-signal'),
  }),
];
