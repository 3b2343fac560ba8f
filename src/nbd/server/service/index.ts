export type { NbdClientMessage } from './client-channel.js';
export type { ClientEvents, NbdConnection, NbdHost } from './host.js';
export { guarded, NbdService, type NbdServiceOptions } from './service.js';
