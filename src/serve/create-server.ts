import { availableParallelism } from 'node:os';
import { isMadeOfFiles, plainFile } from '../block/index.js';
import { checkCount, checkExportOptions, guarded, NbdServer } from '../nbd/server/index.js';
import { optionCheck } from '../util/index.js';
import { descriptorCopier } from './copy-descriptor.js';
import type { ServedDevice, ServeOptions } from './options.js';
import { counterCells, countersOf } from './shared-counters.js';
import { ThreadHost } from './thread-host.js';
import { workOf } from './work.js';

/** More have not been seen to help. */
const MOST_THREADS = 7;

/**
 * An NBD server over devices, which serves its clients in several threads.
 *
 * @throws TypeError or RangeError when the options are not valid.
 */
export async function createServer(options: ServeOptions): Promise<NbdServer> {
  checkServeOptions('createServer', options);
  if (!Array.isArray(options.exports)) throw new TypeError('createServer: exports must be a list');
  for (const [i, served] of options.exports.entries()) {
    checkExportOptions(`createServer: exports[${i}]`, served);
  }
  const { threads = Math.min(MOST_THREADS, availableParallelism() - 1), ...serving } = options;
  checkCount('threads', threads, 0, 1024);
  if (threads === 0 || !options.exports.every(isAlikeEverywhere)) return new NbdServer(serving);
  const copyDescriptor = descriptorCopier();
  if (copyDescriptor === undefined) return new NbdServer(serving);
  const work = workOf(options);
  const onDeviceError = guarded(options.onDeviceError);
  const cells = counterCells(1 + threads);
  const common = { work, cells, copyDescriptor, onDeviceError };
  return new NbdServer(
    serving,
    (own, plan) =>
      // The first of all threads is the server's own.
      Array.from(
        { length: threads },
        (_, i) => new ThreadHost({ ...common, own, plan, thread: i + 1 }),
      ),
    countersOf(cells, 0),
  );
}

const checkServeOptions = optionCheck<ServeOptions>({
  exports: { needed: 'a list; each is { name, device }' },
  threads: 'any',
  tls: 'any',
  maxConnections: 'any',
  maxMemory: 'any',
  handshakeTimeoutMs: 'any',
  idleTimeoutMs: 'any',
  limits: 'any',
  onRefused: 'callback',
  onDeviceError: 'callback',
});

/**
 * Whether every opening shows the same bytes. Of a device that is written some are in the memory of one opening alone,
 * such as the tables of an image; so it is with an image that others may write meanwhile, and a server may let in only
 * so many openings of its export.
 */
function isAlikeEverywhere({ device }: ServedDevice): boolean {
  const { capabilities, description } = device;
  if (capabilities.write) return false;
  return (
    plainFile(description) !== undefined ||
    (isMadeOfFiles(description) && !description?.['force-share'])
  );
}
