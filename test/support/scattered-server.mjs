/**
 * An NBD server whose disk has so many extents of data, at equal distances, and reads fast: what is measured is
 * whoever copies it.
 *
 *     node scattered-server.mjs SOCKET EXTENTS LENGTH STEP
 */
import { Device, ExtentList, Status } from 'lacuna';
import { NbdServer } from 'lacuna/nbd';

const [socket, ...numbers] = process.argv.slice(2);
const [extents, length, step] = numbers.map(Number);

/** Extents of one answer. */
const MOST = 8192;

const driver = {
  name: 'scattered',
  size: extents * step,
  limits: {
    minimum: 512,
    preferred: 65536,
    maximum: 2 ** 25,
    maximumZero: 2 ** 25,
    zeroAlignment: 512,
    discardAlignment: 512,
  },
  capabilities: { contexts: ['base:allocation'], multiConnection: true },
  read: async (_offset, target) => {
    target.fill(1);
  },
  extents: async (offset, asked) => {
    const list = new ExtentList(offset);
    while (list.end < offset + asked && list.count < MOST) {
      const at = list.end % step;
      if (at < length) list.push(length - at, Status.data);
      else list.push(step - at, Status.hole | Status.zero);
    }
    return [list];
  },
  close: async () => {},
};

const server = new NbdServer({ exports: [{ name: '', device: new Device(driver) }] });
await server.listen({ type: 'unix', path: socket });
console.log('listening');
// Ends with whoever started it.
process.stdin.resume().on('end', () => process.exit());
