import { GuestAgent } from '../../qmp/index.js';
import { VirshAgent } from '../virsh/index.js';
import type { AgentAddress } from './messages.js';
import type { FreezingAgent } from './thaw.js';

/** @throws what `GuestAgent.connect` throws */
export async function connectAgent(address: AgentAddress): Promise<FreezingAgent> {
  return 'uuid' in address ? new VirshAgent(address) : await GuestAgent.connect(address);
}
