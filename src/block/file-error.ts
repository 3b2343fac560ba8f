import { type ErrorCode, LacunaError } from '../errors/index.js';

/** What a request to a file was about. */
export interface FileRequest {
  /** A verb, such as `read`. */
  readonly action: string;
  readonly device: string;
  readonly offset?: number;
  readonly length?: number;
}

/** The same request may succeed a moment later, with nothing done about it. */
const PASSING = new Set(['EAGAIN', 'EBUSY', 'EINTR', 'ENOBUFS', 'ENOMEM', 'ETIMEDOUT']);

const ADVICE: Record<string, string> = {
  EACCES: 'allow this user to, or run as one who may',
  EDQUOT: 'the quota is used up: raise it or free space, then resume',
  EFBIG: 'the file system or a limit (ulimit -f) does not allow files this long',
  EIO: 'the storage failed: see the system log',
  EISDIR: 'it is a folder: name a file or a block device',
  EMFILE: 'too many open files: raise the limit (ulimit -n)',
  ENOENT: 'there is no such file: check the path',
  ENOSPC: 'there is no space left: free some, then resume',
  EPERM: 'the system does not permit it: the file may be sealed or immutable',
  EROFS: 'the file system is read-only',
  ESTALE: 'the file was replaced on the server: open it again',
  ETXTBSY: 'the file is in use as a program or as swap space',
};

/** The same where a file is to be made. */
const ADVICE_TO_MAKE: Record<string, string> = {
  EEXIST: 'there is one already: remove it, or choose another name',
  ENOENT: 'there is no such folder: make it, or check the path',
  ENOTDIR: 'a part of the path is no folder: check the path',
};

/** What the system said about a request to a file: the error that Node threw, or a call's errno. */
export function fileError(
  code: ErrorCode,
  request: FileRequest,
  failure: NodeJS.ErrnoException | string,
): LacunaError {
  const thrown = typeof failure !== 'string';
  const errno = thrown ? (failure.code ?? failure.name) : failure;
  return new LacunaError(code, describe(request, errno), {
    ...request,
    errno,
    cause: thrown ? failure : undefined,
    retryable: PASSING.has(errno),
  });
}

/** A file that ends before its size says so. */
export function shortError(request: FileRequest, end: number): LacunaError {
  const what = `${request.device} ends at byte ${end}, before the size it had when it was opened`;
  return new LacunaError(
    'ERR_DEVICE_SHORT',
    `${what}: find who cut it, then open it again`,
    request,
  );
}

function describe({ action, device, offset, length }: FileRequest, errno: string): string {
  const range = length === undefined ? '' : ` ${length} bytes at ${offset}`;
  const advice = (action === 'create' ? ADVICE_TO_MAKE[errno] : undefined) ?? ADVICE[errno];
  return `Cannot ${action} ${device}${range} (${errno})${advice === undefined ? '' : `: ${advice}`}`;
}
