import type { BitmapHandle, SharedArena } from '../bitmap/index.js';
import { again, type DeviceAgain } from '../block/index.js';
import { type NbdServiceOptions, type OfferedTls, offeredTls } from '../nbd/server/index.js';
import type { ServedDevice, ServeOptions } from './options.js';

/** What a thread serves, and how: plain data. */
export interface ServingWork
  extends Pick<NbdServiceOptions, 'handshakeTimeoutMs' | 'idleTimeoutMs' | 'limits'> {
  readonly exports: readonly ExportAgain[];
  readonly tls: OfferedTls;
}

/** An export for another thread. */
export interface ExportAgain {
  readonly name: string;
  readonly description: string | undefined;
  readonly device: DeviceAgain;
  readonly bitmaps: readonly BitmapAgain[];
}

/** A bitmap for another thread. */
export interface BitmapAgain {
  readonly name: string;
  readonly arena: SharedArena;
  readonly handle: BitmapHandle;
}

/** What another thread needs to serve the same. */
export function workOf(options: ServeOptions): ServingWork {
  const { exports, tls, handshakeTimeoutMs, idleTimeoutMs, limits } = options;
  return {
    exports: exports.map(exportAgain),
    tls: offeredTls(tls),
    handshakeTimeoutMs,
    idleTimeoutMs,
    limits,
  };
}

function exportAgain({ name, description, device, bitmaps = {} }: ServedDevice): ExportAgain {
  return {
    name,
    description,
    device: again(device),
    bitmaps: Object.entries(bitmaps).map(([key, { arena, handle }]) => {
      return { name: key, arena: arena.shared, handle };
    }),
  };
}
