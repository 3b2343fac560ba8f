import type { BitmapHandle, SharedArena } from '../bitmap/index.js';
import { type SharedDevice, shareDevice } from '../block/index.js';
import { type NbdServiceOptions, type OfferedTls, offeredTls } from '../nbd/server/index.js';
import type { ServedDevice, ServeOptions } from './options.js';

/** What a thread serves, and how: plain data. */
export interface ServingWork
  extends Pick<NbdServiceOptions, 'handshakeTimeoutMs' | 'idleTimeoutMs' | 'limits'> {
  readonly exports: readonly SharedExport[];
  readonly tls: OfferedTls;
}

/** An export for another thread. */
export interface SharedExport {
  readonly name: string;
  readonly description: string | undefined;
  readonly device: SharedDevice;
  readonly bitmaps: readonly SharedBitmap[];
}

/** A bitmap for another thread. */
export interface SharedBitmap {
  readonly name: string;
  readonly arena: SharedArena;
  readonly handle: BitmapHandle;
}

/** What another thread needs to serve the same. */
export function workOf(options: ServeOptions): ServingWork {
  const { exports, tls, handshakeTimeoutMs, idleTimeoutMs, limits } = options;
  return {
    exports: exports.map(shareExport),
    tls: offeredTls(tls),
    handshakeTimeoutMs,
    idleTimeoutMs,
    limits,
  };
}

function shareExport({ name, description, device, bitmaps = {} }: ServedDevice): SharedExport {
  return {
    name,
    description,
    device: shareDevice(device),
    bitmaps: Object.entries(bitmaps).map(([key, { arena, handle }]) => {
      return { name: key, arena: arena.shared, handle };
    }),
  };
}
