import type { ImageFormat, Range } from '../block/index.js';
import { JOB_OPTIONS, Job, type JobOptions } from '../job/index.js';
import { checkGiven, optionCheck } from '../util/index.js';
import { type CopyJob, copy } from './job/index.js';
import {
  A_DEVICE,
  type CopyReport,
  type DeviceSource,
  TRANSFER,
  type TransferOptions,
} from './options/index.js';
import { checkTransfer } from './run/index.js';

/** How a digest is taken, and how hard the source is driven. */
export interface DigestOptions extends TransferOptions, JobOptions {
  /** The format inside a path. Default: from the path's ending. */
  sourceFormat?: ImageFormat;
  /** Read although others may be writing; see OpenOptions. */
  forceShare?: boolean;
}

const checkDigestOptions = optionCheck<DigestOptions>({
  ...TRANSFER,
  ...JOB_OPTIONS,
  sourceFormat: 'any',
  forceShare: 'flag',
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
export function digest(source: DeviceSource, options: DigestOptions = {}): Job<DigestReport> {
  checkGiven('digest', 'source', source, A_DEVICE);
  checkDigestOptions('digest', options);
  checkTransfer(options);
  const { rate, signal, ...rest } = options;
  const nowhere = { target: { driver: 'null' } as const, detectZeroes: 'off' as const };
  let job: CopyJob | undefined;
  return new Job<DigestReport>({
    what: 'a digest',
    rate,
    signal,
    work: async (control) => {
      // It makes nothing that would be left unfinished: to stop is to end at once.
      const how = { ...rest, ...nowhere, digest: true, flush: false, signal: control.ending };
      job = copy({ ...how, source });
      return reportOf(await control.run(job));
    },
    counted: () => {
      const { totalBytes = 0, doneBytes = 0 } = job?.progress() ?? {};
      return { totalBytes, doneBytes };
    },
  });
}

function reportOf(report: CopyReport): DigestReport {
  const { digest, size, movedBytes, missing, threads, durationMs, warnings } = report;
  const read = { readBytes: movedBytes, skippedBytes: size - movedBytes };
  return { digest: digest!, size, ...read, missing, threads, durationMs, warnings };
}
