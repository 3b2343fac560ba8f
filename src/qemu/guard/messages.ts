import type { WireError } from '../../errors/index.js';
import type { QmpAddress } from '../../qmp/index.js';
import type { VirshDomain } from '../virsh/index.js';

/** Where a guest agent is: at a socket, or behind libvirt. */
export type AgentAddress = QmpAddress | VirshDomain;

/** What a guard is told, one thing at a time. */
export type Order =
  | { readonly order: 'connect'; readonly address: AgentAddress }
  | { readonly order: 'freeze'; readonly timeoutMs: number; readonly deadlineMs: number }
  | { readonly order: 'thaw' };

/** Asks whether it runs; it says that it does, and answers nothing. */
export interface Ping {
  readonly order: 'ping';
}

/** What it says at once to everything that it is told: it runs. */
export interface Taken {
  readonly taken: true;
}

/** What it answers. */
export interface Answer {
  /** Absent where it went well. */
  readonly failure?: WireError;
  /** How many file systems were frozen or thawed, as far as the agent tells. */
  readonly count?: number;
  /** To `thaw`: the deadline had passed before, and the guest was thawed then. */
  readonly wasLate?: boolean;
}
