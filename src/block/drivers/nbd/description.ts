import type { NbdServerAddress, NbdTls } from '../../../nbd/index.js';
import type { CommonDescription } from '../../contract/index.js';

/** An export of an NBD server. */
export interface NbdDescription extends CommonDescription {
  /** A client of an NBD server. */
  driver: 'nbd';
  /** Where it listens: `type` is `unix` with a `path`, or `inet` with `host` and `port`. */
  server: NbdServerAddress;
  /** Name of the export; default the empty name, the server's default export. */
  export?: string;
  /**
   * Requires TLS. The keys are those of `tls-...` in an NBD URI (`type`, `certificates`, `hostname`,
   * `verify-peer`, `psk-file`), and `ca`, `cert`, `key` for PEM texts or a key in place of files.
   */
  tls?: NbdTls;
  /** Metadata contexts beside `base:allocation`, such as `qemu:dirty-bitmap:NAME`. */
  contexts?: string[];
  /** Ask for `base:allocation` as well. Default true; see `NbdConnectOptions`. */
  allocation?: boolean;
  /**
   * Seconds for which requests wait when the connection is lost, while it is made again. Default 0: they fail at
   * once. See `ReconnectingClient` for what is made again and when a flush fails.
   */
  'reconnect-delay'?: number;
  /** Seconds for which opening is tried again. Default 0: once. */
  'open-timeout'?: number;
  /** Seconds that connecting and the handshake together may take. Default 15; 0 for no limit. */
  'connect-timeout'?: number;
  /**
   * Seconds without any progress, while requests wait, after which the connection counts as lost. Default 300; 0 for no
   * limit.
   */
  'request-timeout'?: number;
}

declare module '../../contract/description.js' {
  interface Descriptions {
    /** An export of an NBD server. */
    nbd: NbdDescription;
  }
}
