/** QMP: steering a running QEMU, a qemu-storage-daemon, and the agent inside a guest. */
export * from './client/index.js';
export * from './server/index.js';
export type { JsonObject, QmpEvent, QmpVersion } from './wire/index.js';
