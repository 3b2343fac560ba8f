/** A daemon with a graph of nodes, jobs and exports, steered over QMP. */
export type { DaemonArguments } from './arguments.js';
export {
  Daemon,
  type DaemonCloseOptions,
  type DaemonOptions,
  type DaemonWatchOptions,
} from './daemon.js';
export type { Watch, WatchAddress } from './watch/index.js';
