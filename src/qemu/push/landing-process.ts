/**
 * The process that QEMU pushes disks to. It serves files over NBD, and says which ranges have landed in them. It is a process
 * of its own because QEMU cannot change anything in its graph of nodes while a write to a server is not answered, and the
 * guest waits for such a change: so what holds up the process that began it (a terminal that stops it, a slow repository)
 * must not hold up this one. It ends when that process is gone.
 */
import { type BlockDevice, openDevice } from '../../block/index.js';
import { LacunaError, toWire } from '../../errors/index.js';
import type { NbdExportDevice } from '../../nbd/index.js';
import { createServer } from '../../serve/index.js';
import { counted } from '../../util/index.js';
import { GRANULE } from './granule.js';
import type { Landed, LandingOrder, Order, Said } from './messages.js';

const landed: Landed[] = [];
let dataBytes = 0;
let mostBytes = 0;

process.on('message', (order: Order) => {
  if (order.order === 'ping') say({ is: 'alive' });
  else if (order.order === 'settle') {
    sayLanded();
    say({ is: 'settled' });
  } else {
    serve(order).then(
      () => say({ is: 'serving' }),
      (error) => say({ is: 'failed', failure: toWire(error) }),
    );
  }
});

process.once('disconnect', () => process.exit(0));
// What a terminal or the end of a session sends to the process that began this one is not for this one.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});

/** That nobody hears it any more is told by the event. */
function say(what: Said): void {
  if (process.connected) process.send!(what, undefined, undefined, () => {});
}

async function serve({ socket, disks, mostBytes: most }: LandingOrder): Promise<void> {
  mostBytes = most;
  const exports = [];
  for (const [disk, { file: filename }] of disks.entries()) {
    const device = await openDevice({ driver: 'file', filename }, { writable: true });
    exports.push({ name: String(disk), device: landingSide(disk, device) as BlockDevice });
  }
  const server = await createServer({ exports, threads: 0, idleTimeoutMs: 0 });
  await server.listen({ type: 'unix', path: socket });
}

/** What QEMU writes to. */
function landingSide(disk: number, device: BlockDevice): NbdExportDevice {
  const { limits, capabilities } = device;
  return {
    size: device.size,
    // With any other, QEMU would read what lies around a short write, and write it as its own.
    limits: { minimum: 1, preferred: Math.max(limits.preferred, GRANULE) },
    capabilities: { ...capabilities, fastZero: false, discard: false },
    read: (offset, target) => device.read(offset, target),
    write: (offset, source, options) =>
      land([disk, true, offset, source.byteLength], device, () =>
        device.write(offset, source, options),
      ),
    zero: (offset, length, { fua }) =>
      land([disk, false, offset, length], device, () =>
        device.zero(offset, length, { unmap: true, fua }),
      ),
    discard: async () => {},
    flush: () => device.flush(),
    someExtents: (offset, length, options) => device.someExtents(offset, length, options),
  };
}

/** A range counts when it was written, and before QEMU is told so. */
async function land(range: Landed, device: BlockDevice, work: () => Promise<void>): Promise<void> {
  try {
    check(range, device);
    await work();
  } catch (error) {
    // QEMU is told no more than a kind of error.
    say({ is: 'failed', failure: toWire(error) });
    throw error;
  }
  landed.push(range);
  if (landed.length === 1) setImmediate(sayLanded);
}

/** @throws LacunaError for what does not fit, or would be taken for more than it is. */
function check([, isData, offset, length]: Landed, { name: device, size }: BlockDevice): void {
  const isWhole = offset % GRANULE === 0 && (length % GRANULE === 0 || offset + length === size);
  if (!isWhole) {
    const what = `${device}: QEMU writes ${counted(length, 'byte')} at ${offset}, which is a part of ${GRANULE} bytes`;
    throw new LacunaError('ERR_PUSH_FAILED', what, { device, offset, length, errno: 'EINVAL' });
  }
  if (isData) dataBytes += length;
  if (dataBytes <= mostBytes) return;
  const what = `${device}: QEMU pushes more than the ${mostBytes} bytes that the folder may take beside the scratch images`;
  throw new LacunaError('ERR_SCRATCH_FULL', what, { device, errno: 'ENOSPC' });
}

function sayLanded(): void {
  if (landed.length > 0) say({ is: 'landed', ranges: landed.splice(0) });
}
