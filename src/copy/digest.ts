import type { ImageFormat, Range } from '../block/index.js';
import { checkGiven, optionCheck } from '../util/index.js';
import { copy, follow } from './job/index.js';
import { A_DEVICE, type DeviceSource, TRANSFER, type TransferOptions } from './options/index.js';

/** How a digest is taken, and how hard the source is driven. */
export interface DigestOptions extends TransferOptions {
  /** The format inside a path. Default: from the path's ending. */
  sourceFormat?: ImageFormat;
  /** Read although others may be writing; see OpenOptions. */
  forceShare?: boolean;
  /** Fires to end the work; it fails with ERR_ABORTED. */
  signal?: AbortSignal;
  /** Told about ten times a second. What it throws fails the digest. */
  onProgress?(progress: { readBytes: number; totalBytes: number }): void;
}

const checkDigestOptions = optionCheck<DigestOptions>({
  ...TRANSFER,
  sourceFormat: 'any',
  forceShare: 'flag',
  signal: 'signal',
  onProgress: 'callback',
});

/** The digest of a disk, and what it took. */
export interface DigestReport {
  /** `lacuna1:` and 64 hexadecimal digits. */
  digest: string;
  /** Bytes of the source. */
  size: number;
  /** Bytes that were read. */
  readBytes: number;
  /** Bytes not read, because they are known to be zero. */
  skippedBytes: number;
  /** Ranges that are lost and were taken for zeroes; see `missing` of a CopyReport. */
  missing: Range[];
  /** Worker threads; 0 when the calling thread did it all. */
  threads: number;
  /** Milliseconds from the call to the report. */
  durationMs: number;
  /** What a person should know although it succeeded. */
  warnings: string[];
}

/**
 * Names the content of a device by one SHA-256, which docs/digest.md defines. Only data is read; devices of the same
 * size with the same bytes have the same digest, whatever is allocated.
 *
 * @throws what `copy` throws: this is a copy to nowhere.
 */
export async function digest(
  source: DeviceSource,
  options: DigestOptions = {},
): Promise<DigestReport> {
  checkGiven('digest', 'source', source, A_DEVICE);
  checkDigestOptions('digest', options);
  const { onProgress, ...rest } = options;
  const nowhere = { target: { driver: 'null' } as const, detectZeroes: 'off' as const };
  const job = copy({ ...rest, ...nowhere, source, digest: true, flush: false });
  const { digest, size, movedBytes, missing, threads, durationMs, warnings } = await follow(
    job,
    ({ movedBytes: readBytes, totalBytes }) => onProgress?.({ readBytes, totalBytes }),
  );
  const read = { readBytes: movedBytes, skippedBytes: size - movedBytes };
  return { digest: digest!, size, ...read, missing, threads, durationMs, warnings };
}
