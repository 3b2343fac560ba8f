import fs from 'node:fs';
import { LacunaError } from '../../errors/index.js';
import {
  type BlockDevice,
  type CommonDescription,
  Device,
  type DeviceDescription,
  isBlockDevice,
  text,
} from '../contract/index.js';
import { filterKind } from './filter-kind.js';
import {
  type Around,
  type FilterDescription,
  type Operation,
  passThrough,
} from './pass-through.js';

/** Writes one line for each request. */
export interface LogDescription extends CommonDescription, FilterDescription {
  /** Writes down every request. */
  driver: 'log';
  /** The file that lines are added to; made where it is not there. */
  'log-file': string;
}

declare module '../contract/description.js' {
  interface Descriptions {
    /** Requests that are written down. */
    log: LogDescription;
  }
}

/** A request that has ended. */
export interface LoggedRequest {
  /** What was asked. */
  readonly operation: Operation;
  /** First byte; 0 for a flush. */
  readonly offset: number;
  /** Bytes; 0 for a flush. */
  readonly length: number;
  /** Milliseconds that it took. */
  readonly milliseconds: number;
  /** Absent where it succeeded. */
  readonly error?: Error;
}

export const log = filterKind<LogDescription>({
  keys: { 'log-file': { read: text, required: true } },
  sideFiles: ['log-file'],
  around: ({ 'log-file': path }, _, child) => {
    const fd = openLog(path, child);
    return {
      pass: logged((request) => addLine(fd, path, request)),
      close: () => fs.closeSync(fd),
    };
  },
});

/**
 * A device that tells a function of every request that has ended, in the order in which they end.
 *
 * @param tell what it throws fails the request that it is told of.
 * @throws TypeError where one of the two is something else.
 */
export function withLog(device: BlockDevice, tell: (request: LoggedRequest) => void): BlockDevice {
  if (!isBlockDevice(device)) throw new TypeError('withLog needs a device that is open');
  if (typeof tell !== 'function')
    throw new TypeError('withLog needs a function to tell of requests');
  return new Device(passThrough(device, logged(tell)));
}

function logged(tell: (request: LoggedRequest) => void): Around {
  return async ({ operation, offset, length }, pass) => {
    const start = performance.now();
    const end = (error?: unknown) =>
      tell({
        operation,
        offset,
        length,
        milliseconds: performance.now() - start,
        ...(error !== undefined && { error: error as Error }),
      });
    const result = await pass().catch((error: unknown) => {
      end(error);
      throw error;
    });
    end();
    return result;
  };
}

function addLine(fd: number, path: string, request: LoggedRequest): void {
  try {
    fs.writeSync(fd, lineOf(request));
  } catch (error) {
    const { code: errno } = error as NodeJS.ErrnoException;
    const message = `Cannot log to ${path}: ${(error as Error).message}; the request that the line tells of fails for that`;
    throw new LacunaError('ERR_DEVICE_IO', message, { device: path, errno, cause: error });
  }
}

function lineOf({ operation, offset, length, milliseconds, error }: LoggedRequest): string {
  const time = new Date().toISOString();
  // As JSON, an error has no line breaks and no control characters.
  const result = error === undefined ? 'ok' : JSON.stringify(error.message);
  return `${time} ${operation} offset=${offset} length=${length} ms=${milliseconds.toFixed(3)} ${result}\n`;
}

/** A regular file that lines are added to, and none of those that hold the disk. */
function openLog(path: string, child: BlockDevice): number {
  const { O_WRONLY, O_APPEND, O_CREAT, O_NONBLOCK } = fs.constants;
  let fd: number;
  try {
    // A FIFO would otherwise wait for a reader.
    fd = fs.openSync(path, O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK, 0o600);
  } catch (error) {
    throw refused(path, `it cannot be opened: ${(error as Error).message}`, error);
  }
  const stat = fs.fstatSync(fd);
  const isDisk = filesIn(child.description).some((file) => {
    const other = fs.statSync(file, { throwIfNoEntry: false });
    return other?.ino === stat.ino && other.dev === stat.dev;
  });
  if (stat.isFile() && !isDisk) return fd;
  fs.closeSync(fd);
  throw refused(
    path,
    isDisk ? 'it holds a part of the disk: name another file' : 'it is not a file',
  );
}

/** The paths of all files that a description names, however deep. */
function filesIn(description: DeviceDescription | undefined): string[] {
  return Object.entries(description ?? {}).flatMap(([key, value]) => {
    if (key === 'filename') return [value as string];
    return typeof value === 'object' && value !== null ? filesIn(value as DeviceDescription) : [];
  });
}

function refused(path: string, why: string, cause?: unknown): LacunaError {
  const message = `Cannot log to ${path}: ${why}`;
  return new LacunaError('ERR_DEVICE_OPEN', message, {
    device: path,
    ...(cause !== undefined && { cause }),
  });
}
