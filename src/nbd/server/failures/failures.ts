import { LacunaError } from '../../../errors/index.js';
import type { ErrnoName } from '../../wire/index.js';

/** The client said something that cannot be answered; the stream cannot be trusted any further. */
export function violation(what: string): LacunaError {
  return new LacunaError('ERR_NBD_PROTOCOL', `the client broke the NBD protocol: ${what}`);
}

/** The connection ends without anybody's fault. */
export function ended(why: string, cause?: unknown): LacunaError {
  return new LacunaError('ERR_NBD_DISCONNECTED', why, { cause });
}

/** Names of the host's errors that the wire has other words for ("Error values"). */
const TRANSLATED: Readonly<Record<string, ErrnoName>> = {
  EPERM: 'EPERM',
  EACCES: 'EPERM',
  EROFS: 'EPERM',
  EIO: 'EIO',
  ENOMEM: 'ENOMEM',
  EINVAL: 'EINVAL',
  ENOSPC: 'ENOSPC',
  EDQUOT: 'ENOSPC',
  EFBIG: 'ENOSPC',
  EOVERFLOW: 'EOVERFLOW',
  ESHUTDOWN: 'ESHUTDOWN',
};

/** The wire's name for what went wrong in a device. */
export function wireErrno(error: unknown): ErrnoName {
  if (error instanceof RangeError) return 'EINVAL';
  if (!(error instanceof LacunaError)) return 'EIO';
  if (error.code === 'ERR_DEVICE_CLOSED') return 'ESHUTDOWN';
  const known = error.errno === undefined ? undefined : TRANSLATED[error.errno];
  if (known !== undefined) return known;
  // ENOTSUP is for a fast zero alone, and said where one is asked.
  return error.code === 'ERR_DEVICE_UNSUPPORTED' ? 'EINVAL' : 'EIO';
}
