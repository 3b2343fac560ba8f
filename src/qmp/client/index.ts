export type { QmpAddress, QmpTcpAddress, QmpUnixAddress } from './address.js';
export type {
  BlockGraph,
  BlockGraphEdge,
  BlockGraphNode,
  BlockJobInfo,
  ChardevInfo,
  DirtyBitmapInfo,
  DriveInfo,
  ExportInfo,
  FormatDetails,
  JobInfo,
  MemorySize,
  MigrationCapability,
  MigrationInfo,
  MigrationMemory,
  NodeImage,
  NodeInfo,
  QmpAnswers,
  RunStatus,
} from './answers.js';
export { EventStream, type ReceivedEvent } from './event-stream.js';
export {
  type AgentCommandOptions,
  type FreezeOptions,
  type FreezeStatus,
  GuestAgent,
  type GuestAgentOptions,
} from './guest-agent.js';
export type { QmpEventData, TypedEvent } from './happenings.js';
export {
  type EventOptions,
  type ExecuteOnceOptions,
  type ExecuteOptions,
  Monitor,
  type MonitorOptions,
} from './monitor.js';
export type { QmpCommandOptions } from './pending-commands.js';
export { type QmpNeeds, QmpSchema } from './schema.js';
