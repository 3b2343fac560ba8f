/** Errors of misuse speak of the engine's options; on a command line those have other names. */

/** What the command calls an option of the engine. */
const NAMES: Readonly<Record<string, string>> = {
  clusterSize: 'cluster_size',
  refcountBits: 'refcount_bits',
  extendedL2: 'extended_l2',
  compressionType: 'compression_type',
  lazyRefcounts: 'lazy_refcounts',
  dataFile: 'data_file',
  dataFileRaw: 'data_file_raw',
  requestSize: '--request-size',
  detectZeroes: '--detect-zeroes',
  targetIsZero: '--target-is-zero',
  onReadError: '--on-read-error',
  onWriteError: '--on-write-error',
  'retry.attempts': '--retries',
  'retry.backoffMs': '--backoff',
  'retry.reconnectSeconds': '--reconnect',
};

const KNOWN = new RegExp(
  `(?<![\\w./-])(?:${Object.keys(NAMES)
    .map((name) => name.replace('.', '\\.'))
    .join('|')})(?![\\w./-])`,
  'g',
);

/** The message of an error; one about misuse with the names that the command has for what it speaks of. */
export function inCommandWords(error: Error): string {
  const isMisuse = error instanceof TypeError || error instanceof RangeError;
  return isMisuse ? error.message.replace(KNOWN, (name) => NAMES[name]) : error.message;
}
