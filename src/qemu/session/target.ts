import type { NbdServerAddress } from '../../nbd/index.js';
import type { Monitor, QmpAddress } from '../../qmp/index.js';

/** A machine, as far as sessions need to know it. */
export interface Target {
  readonly monitor: Monitor;
  readonly address: QmpAddress;
  readonly agent?: QmpAddress | undefined;
  /** The NBD server that QEMU runs already; a session starts one of its own where there is none. */
  readonly nbd?: NbdServerAddress | undefined;
  /** Where folders of sessions are made. */
  readonly folder: string;
}
