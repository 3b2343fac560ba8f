import { SharedCounters } from '../../wasm/index.js';
import {
  type BlockDevice,
  type CommonDescription,
  type DeviceDescription,
  type Driver,
  type DriverKind,
  description,
  type Keys,
} from '../contract/index.js';
import { type Around, type FilterDescription, passThrough } from './pass-through.js';

/** What every description of a filter may say. */
type Description = CommonDescription & FilterDescription & { driver: string; shared?: unknown };

interface FilterOptions<D> {
  /** Its own keys, beside `file`. */
  readonly keys: Keys;
  /** How many numbers all openings of one filter share, in whatever thread they are. */
  readonly counters: number;
  /** What it does with requests; called once for each opening. */
  readonly around: (description: D, counters: SharedCounters, child: BlockDevice) => Around | Held;
}

/** What a filter does, where its opening holds something that must be given back. */
interface Held {
  readonly pass: Around;
  readonly close: () => void;
}

/**
 * A filter as a kind of driver: its description has the device below as `file`, as QEMU's filters have. The first opening
 * makes the counters; openings that are made from its description, in whatever thread, use the same.
 */
export function filterKind<D extends Description>({
  keys,
  counters,
  around,
}: FilterOptions<D>): DriverKind<D> {
  return {
    keys: {
      ...keys,
      file: { read: description, required: true },
      shared: { read: sharedMemory },
    } as unknown as DriverKind<D>['keys'],
    isFilter: true,
    children: ({ file }) => [file],
    open: async (wanted, opening): Promise<Driver> => {
      const readOnly = wanted['read-only'] === true;
      const { file } = wanted;
      const child = await opening.open({ ...file, 'read-only': readOnly }, opening);
      try {
        const shared = new SharedCounters((wanted.shared as SharedArrayBuffer) ?? counters);
        const opened =
          child.description &&
          ({
            ...wanted,
            file: child.description,
            shared: shared.memory,
          } as DeviceDescription);
        const held = around(wanted, shared, child);
        if (typeof held === 'function') return passThrough(child, held, opened);
        return passThrough(child, held.pass, opened, () => child.close().finally(held.close));
      } catch (error) {
        await child.close();
        throw error;
      }
    },
  };
}

function sharedMemory(value: unknown, key: string): SharedArrayBuffer {
  if (value instanceof SharedArrayBuffer) return value;
  throw new TypeError(`${key} is what one opening hands to the next: leave it out`);
}
