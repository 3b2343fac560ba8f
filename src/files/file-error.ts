import { type ErrorCode, LacunaError } from '../errors/index.js';
import { counted, describeRefusal } from '../util/index.js';

/** What a request to a file was about. */
export interface FileRequest {
  /** A verb, such as `read`. */
  readonly action: string;
  readonly device: string;
  readonly offset?: number;
  readonly length?: number;
  /** The file was to be made. */
  readonly making?: boolean;
  /** It is a block device. */
  readonly isBlock?: boolean;
}

/** The same request may succeed a moment later, with nothing done about it. */
const PASSING = new Set(['EAGAIN', 'EBUSY', 'EINTR', 'ENOBUFS', 'ENOMEM', 'ETIMEDOUT']);

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

function describe({ action, device, offset, length, ...kind }: FileRequest, errno: string): string {
  const range = length === undefined ? '' : ` ${counted(length, 'byte')} at ${offset}`;
  return describeRefusal(`Cannot ${action} ${device}${range}`, errno, kind);
}
