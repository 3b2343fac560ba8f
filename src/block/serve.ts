import type { Bitmap } from '../bitmap/index.js';
import { type NbdExportOptions, NbdServer, type NbdServerOptions } from '../nbd/index.js';
import type { Device } from './device.js';

export type { NbdServerAddress, NbdServerTls } from '../nbd/index.js';

/** A device as an export, with bitmaps by name. */
export interface ServedDevice extends NbdExportOptions {
  readonly device: Device;
  readonly bitmaps?: Readonly<Record<string, Bitmap>>;
}

export interface ServeOptions extends Omit<NbdServerOptions, 'exports'> {
  readonly exports: readonly ServedDevice[];
}

/** The NBD server over devices. It knows neither them nor bitmaps; that they fit what it serves is shown here. */
export function createServer(options: ServeOptions): NbdServer {
  return new NbdServer(options);
}
