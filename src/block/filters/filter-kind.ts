import { COUNTER_BYTES, SharedCounters } from '../../wasm/index.js';
import {
  type BlockDevice,
  type CommonDescription,
  type DeviceDescription,
  type Driver,
  type DriverKind,
  description,
  type Key,
  type Keys,
  type Opening,
} from '../contract/index.js';
import { type Around, type FilterDescription, passThrough } from './pass-through.js';

/** What every description of a filter may say. */
type Description = CommonDescription & FilterDescription & { driver: string; shared?: unknown };

/** One key for everything that a filter may say beside what all filters may say. */
type OwnKeys<D> = { readonly [K in Exclude<keyof D, keyof Description>]-?: Key };

interface FilterOptions<D> {
  /** Its own keys, beside `file`. */
  readonly keys: OwnKeys<D>;
  /** How many numbers all openings of one filter share, in whatever thread they are. Default 0. */
  readonly counters?: number;
  /** The key by which nodes of one graph share these numbers: its value is a name. */
  readonly groupKey?: keyof D & string;
  /** What it does with requests; called once for each opening. */
  readonly around: (description: D, counters: SharedCounters, child: BlockDevice) => Around | Held;
  /** The keys that name files which it writes. */
  readonly sideFiles?: readonly string[];
}

/** What a filter does, where its opening holds something that must be given back. */
interface Held {
  readonly pass: Around;
  readonly close: () => void;
  /** See {@link Driver.hurry}. */
  readonly hurry?: (on: boolean) => void;
}

/**
 * A filter as a kind of driver: its description has the device below as `file`, as QEMU's filters have. The first opening
 * makes the counters; openings that are made from its description, in whatever thread, use the same.
 */
export function filterKind<D extends Description>({
  keys,
  counters = 0,
  groupKey,
  around,
  sideFiles,
}: FilterOptions<D>): DriverKind<D> {
  const sharing = (wanted: D): D =>
    counters === 0 ? wanted : { ...wanted, shared: unprinted(wanted.shared, counters) };
  return {
    keys: {
      ...keys,
      file: { read: description, required: true },
      ...(counters > 0 && { shared: { read: readMemory(counters), isHidden: true } }),
    } as unknown as DriverKind<D>['keys'],
    isFilter: true,
    children: ({ file }) => [{ key: 'file', description: file, role: 'disk' }],
    sharing,
    ...(sideFiles && { sideFiles }),
    open: async (given, opening): Promise<Driver> => {
      const group = groupKey && (given[groupKey] as string | undefined);
      const wanted = sharing(
        group === undefined ? given : inGroup(given, group, counters, opening),
      );
      const as = { key: 'file', role: 'disk' } as const;
      const child = await opening.open(below(wanted), { ...opening, as });
      try {
        const shared = new SharedCounters((wanted.shared as SharedArrayBuffer | undefined) ?? 0);
        const opened =
          child.description && ({ ...wanted, file: child.description } as DeviceDescription);
        const held = around(wanted, shared, child);
        if (typeof held === 'function') return passThrough(child, held, opened);
        const close = () => child.close().finally(held.close);
        const driver = passThrough(child, held.pass, opened, close);
        return held.hurry === undefined ? driver : Object.assign(driver, { hurry: held.hurry });
      } catch (error) {
        await child.close();
        throw error;
      }
    },
  };
}

/** What is said of the whole device holds below the filter too. */
function below({
  file,
  'read-only': readOnly = false,
  'force-share': forceShare,
}: Description): DeviceDescription {
  return {
    ...file,
    'read-only': readOnly || file['read-only'] === true,
    ...(forceShare && { 'force-share': true }),
  };
}

/** With the numbers of its group. */
function inGroup<D>(given: D, group: string, counters: number, { memoryOf }: Opening): D {
  if (memoryOf === undefined) {
    throw new TypeError(`group '${group}' is for nodes of a graph, which share it: leave it out`);
  }
  return { ...given, shared: memoryOf(group, () => new SharedCounters(counters).memory) };
}

/** Memory for counters, which is left out of the JSON of a description: one that is read from JSON counts from 0. */
function unprinted(given: unknown, counters: number): SharedArrayBuffer {
  const memory = (given as SharedArrayBuffer | undefined) ?? new SharedCounters(counters).memory;
  return Object.defineProperty(memory, 'toJSON', { value: () => undefined, configurable: true });
}

function readMemory(counters: number): Keys[string]['read'] {
  return (value, key) => {
    if (value instanceof SharedArrayBuffer && value.byteLength === counters * COUNTER_BYTES)
      return value;
    throw new TypeError(`${key} is what one opening hands to the next: leave it out`);
  };
}
