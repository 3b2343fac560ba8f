/** What is read of QEMU's answers. See qapi/block-core.json, job.json, char.json and run-state.json of QEMU. */
import {
  anything,
  flag,
  integer,
  list,
  members,
  optional,
  type Reader,
  text,
} from '../wire/index.js';

/** A dirty bitmap of a node (BlockDirtyInfo). */
export interface DirtyBitmapInfo {
  /** Absent for those that belong to a job. */
  readonly name?: string | undefined;
  /** Dirty bytes, in whole granules. */
  readonly count: number;
  /** Bytes. */
  readonly granularity: number;
  /** It marks what is written. */
  readonly recording: boolean;
  /** A job, an export or a migration uses it. */
  readonly busy: boolean;
  /** It is stored in the image when that is closed. */
  readonly persistent: boolean;
  /** It may lack writes: nothing can be done with it but remove it. */
  readonly inconsistent?: boolean | undefined;
}

/** What a node says of the image that it opened (ImageInfo). */
export interface NodeImage {
  /** Its file, or a description of it. */
  readonly filename: string;
  /** Bytes of the disk. */
  readonly 'virtual-size': number;
  /** Bytes of a cluster, where it has any. */
  readonly 'cluster-size'?: number | undefined;
  /** What only images of its format have. */
  readonly 'format-specific'?: FormatDetails | undefined;
}

/** What only images of one format have (ImageInfoSpecific); of qcow2 alone more is read than the type. */
export interface FormatDetails {
  /** Such as `qcow2`. */
  readonly type: string;
  /** What belongs to it. */
  readonly data: {
    /** The version of qcow2: `0.10` for 2, `1.1` for 3. */
    readonly compat?: string | undefined;
  };
}

/** A node of the block graph (BlockDeviceInfo). */
export interface NodeInfo {
  /** Its name; absent or generated where nobody gave it one. */
  readonly 'node-name'?: string | undefined;
  /** Its driver. */
  readonly drv: string;
  /** Its file, or a description of it. */
  readonly file: string;
  /** It is not written. */
  readonly ro: boolean;
  /** What it says of its image. */
  readonly image: NodeImage;
  /** The offset behind which a write is told, once; 0 where none is, or was. */
  readonly write_threshold: number;
  /** Its dirty bitmaps. */
  readonly 'dirty-bitmaps'?: DirtyBitmapInfo[] | undefined;
}

/** A disk drive of a machine (BlockInfo). */
export interface DriveInfo {
  /** The name of `-drive`; may be empty. */
  readonly device: string;
  /** The id, or the path in the machine's tree of objects, of the device that the guest sees. */
  readonly qdev?: string | undefined;
  /** The top node of what is in it. */
  readonly inserted?: NodeInfo | undefined;
}

/** The nodes of the block graph with their edges (XDbgBlockGraph). */
export interface BlockGraph {
  /** What edges lead from and to. */
  readonly nodes: BlockGraphNode[];
  /** Who uses whom. */
  readonly edges: BlockGraphEdge[];
}

/** A node, a job or a device as a part of the graph. */
export interface BlockGraphNode {
  /** What edges call it. */
  readonly id: number;
  /** `block-driver`, `block-job` or `block-backend`. */
  readonly type: string;
  /** The name of the node or job; may be empty. */
  readonly name: string;
}

/** That one uses another. */
export interface BlockGraphEdge {
  /** Who uses it. */
  readonly parent: number;
  /** Who is used. */
  readonly child: number;
  /** As what, such as `file` or `backing`. */
  readonly name: string;
}

/** A job (JobInfo). */
export interface JobInfo {
  /** Its name. */
  readonly id: string;
  /** Such as `backup`. */
  readonly type: string;
  /** Such as `running` or `concluded`. */
  readonly status: string;
  /** What it failed with. */
  readonly error?: string | undefined;
}

/** A block job, with the nodes that it uses (BlockJobInfo). */
export interface BlockJobInfo {
  /** The name of the job. */
  readonly device: string;
  /** Such as `backup`. */
  readonly type: string;
  /** Bytes per second that it moves at most; 0 for no limit. */
  readonly speed: number;
}

/** An export (BlockExportInfo). */
export interface ExportInfo {
  /** Its name in QMP. */
  readonly id: string;
  /** Such as `nbd`. */
  readonly type: string;
  /** The node that is exported. */
  readonly 'node-name': string;
  /** It is about to end. */
  readonly 'shutting-down': boolean;
}

/** A character device (ChardevInfo). */
export interface ChardevInfo {
  /** Its id. */
  readonly label: string;
  /** Where it leads, such as `unix:PATH,server=on`. */
  readonly filename: string;
  /** Whether somebody in the guest has its other end open. */
  readonly 'frontend-open': boolean;
}

/** What the machine is doing (StatusInfo). */
export interface RunStatus {
  /** Its processors run. */
  readonly running: boolean;
  /** Such as `running` or `paused`. */
  readonly status: string;
}

/** A migration, of which one can be under way (MigrationInfo). */
export interface MigrationInfo {
  /** Such as `active` or `pre-switchover`; absent or `none` where there was none yet. */
  readonly status?: string | undefined;
  /** What it failed with. */
  readonly 'error-desc'?: string | undefined;
  /** The memory of the machine. */
  readonly ram?: MigrationMemory | undefined;
}

/** What a migration says of memory (MigrationStats). */
export interface MigrationMemory {
  /** Bytes that were sent. */
  readonly transferred: number;
  /** Bytes that are to be sent, as far as is known. */
  readonly remaining: number;
  /** Bytes of all memory. */
  readonly total: number;
}

/** What a migration may do (MigrationCapabilityStatus). */
export interface MigrationCapability {
  /** Its name. */
  readonly capability: string;
  /** Whether it is on. */
  readonly state: boolean;
}

/** The memory of a machine (MemoryInfo). */
export interface MemorySize {
  /** Bytes that it was started with. */
  readonly 'base-memory': number;
}

/** Commands whose answers are checked, with the types of these. All others answer `unknown`. */
export interface QmpAnswers {
  /** The disk drives of the machine. */
  'query-block': DriveInfo[];
  /** The nodes of the block graph. */
  'query-named-block-nodes': NodeInfo[];
  /** The block graph. The command is for debugging: QEMU makes no promise to keep it. */
  'x-debug-query-block-graph': BlockGraph;
  /** All jobs. */
  'query-jobs': JobInfo[];
  /** The block jobs. */
  'query-block-jobs': BlockJobInfo[];
  /** The exports. */
  'query-block-exports': ExportInfo[];
  /** The character devices. */
  'query-chardev': ChardevInfo[];
  /** Whether the machine runs. */
  'query-status': RunStatus;
  /** The last migration. */
  'query-migrate': MigrationInfo;
  /** What migrations may do. */
  'query-migrate-capabilities': MigrationCapability[];
  /** The memory of the machine. */
  'query-memory-size-summary': MemorySize;
  /** QEMU's description of its commands. */
  'query-qmp-schema': unknown[];
}

const BITMAP = members<DirtyBitmapInfo>({
  name: optional(text),
  count: integer,
  granularity: integer,
  recording: flag,
  busy: flag,
  persistent: flag,
  inconsistent: optional(flag),
});

const IMAGE = members<NodeImage>({
  filename: text,
  'virtual-size': integer,
  'cluster-size': optional(integer),
  'format-specific': optional(
    members<FormatDetails>({ type: text, data: members({ compat: optional(text) }) }),
  ),
});

const GRAPH = members<BlockGraph>({
  nodes: list(members<BlockGraphNode>({ id: integer, type: text, name: text })),
  edges: list(members<BlockGraphEdge>({ parent: integer, child: integer, name: text })),
});

const NODE = members<NodeInfo>({
  'node-name': optional(text),
  drv: text,
  file: text,
  ro: flag,
  image: IMAGE,
  write_threshold: integer,
  'dirty-bitmaps': optional(list(BITMAP)),
});

const READERS: { readonly [K in keyof QmpAnswers]: Reader<QmpAnswers[K]> } = {
  'query-block': list(
    members<DriveInfo>({ device: text, qdev: optional(text), inserted: optional(NODE) }),
  ),
  'query-named-block-nodes': list(NODE),
  'x-debug-query-block-graph': GRAPH,
  'query-jobs': list(
    members<JobInfo>({ id: text, type: text, status: text, error: optional(text) }),
  ),
  'query-block-jobs': list(members<BlockJobInfo>({ device: text, type: text, speed: integer })),
  'query-block-exports': list(
    members<ExportInfo>({ id: text, type: text, 'node-name': text, 'shutting-down': flag }),
  ),
  'query-chardev': list(
    members<ChardevInfo>({ label: text, filename: text, 'frontend-open': flag }),
  ),
  'query-status': members<RunStatus>({ running: flag, status: text }),
  'query-migrate': members<MigrationInfo>({
    status: optional(text),
    'error-desc': optional(text),
    ram: optional(
      members<MigrationMemory>({ transferred: integer, remaining: integer, total: integer }),
    ),
  }),
  'query-migrate-capabilities': list(
    members<MigrationCapability>({ capability: text, state: flag }),
  ),
  'query-memory-size-summary': members<MemorySize>({ 'base-memory': integer }),
  'query-qmp-schema': list(anything),
};

/**
 * Reads the answer to a command.
 *
 * @throws LacunaError ERR_QMP_PROTOCOL
 */
export function readAnswer(command: string, value: unknown): unknown {
  if (!Object.hasOwn(READERS, command)) return value;
  return READERS[command as keyof QmpAnswers](value, command);
}
