import type { CommonDescription, DriverKind } from '../../block/index.js';
import { copyBeforeWrite } from './copy-before-write.js';
import { copyOnRead } from './copy-on-read.js';
import { mirror } from './mirror.js';
import { snapshotAccess } from './snapshot-access.js';

export type { CopyBeforeWriteDescription } from './copy-before-write.js';
export type { CopyOnReadDescription } from './copy-on-read.js';
export { onSide, SideError } from './side-error.js';
export type { SnapshotAccessDescription } from './snapshot-access.js';

/** Kinds of drivers by their names in descriptions. */
export type Kinds = Readonly<Record<string, DriverKind<CommonDescription & { driver: string }>>>;

/** The drivers that only graphs have. To remove one, remove its file, and its line here. */
export const LIVE_KINDS: Kinds = {
  'copy-before-write': copyBeforeWrite,
  'copy-on-read': copyOnRead,
  'snapshot-access': snapshotAccess,
} as never;

/** Those that do nothing without the job that they belong to, and that only a job adds and removes. */
export const JOB_KINDS: Kinds = { mirror } as never;
