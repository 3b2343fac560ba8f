import type { CommonDescription, DriverKind } from '../../block/index.js';
import { copyBeforeWrite } from './copy-before-write.js';
import { copyOnRead } from './copy-on-read.js';
import { snapshotAccess } from './snapshot-access.js';

export type { CopyBeforeWriteDescription } from './copy-before-write.js';
export type { CopyOnReadDescription } from './copy-on-read.js';
export { KeepError } from './kept-copies.js';
export { PullError } from './pulled-layers.js';
export type { SnapshotAccessDescription } from './snapshot-access.js';

/** The drivers that only graphs have, by their names in descriptions. To remove one, remove its file, and its line here. */
export const LIVE_KINDS: Readonly<
  Record<string, DriverKind<CommonDescription & { driver: string }>>
> = {
  'copy-before-write': copyBeforeWrite,
  'copy-on-read': copyOnRead,
  'snapshot-access': snapshotAccess,
} as never;
