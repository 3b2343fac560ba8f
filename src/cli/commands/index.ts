import type { CommandRow } from '../shell/index.js';
import { amendRow } from './amend/index.js';
import { backupRow } from './backup/index.js';
import { bitmapRow } from './bitmap/index.js';
import { checkRow } from './check/index.js';
import { commitRow } from './commit/index.js';
import { compareRow } from './compare/index.js';
import { completionRow } from './completion/index.js';
import { copyRow } from './copy/index.js';
import { createRow } from './create/index.js';
import { daemonRow } from './daemon/index.js';
import { demoRow } from './demo/index.js';
import { diffRow } from './diff/index.js';
import { digestRow } from './digest/index.js';
import { helpRow } from './help/index.js';
import { infoRow } from './info/index.js';
import { listRow } from './list/index.js';
import { mapRow } from './map/index.js';
import { measureRow } from './measure/index.js';
import { migrateRow } from './migrate/index.js';
import { mirrorRow } from './mirror/index.js';
import { populateRow } from './populate/index.js';
import { pruneRow } from './prune/index.js';
import { qmpRow } from './qmp/index.js';
import { rebaseRow } from './rebase/index.js';
import { recoverRow } from './recover/index.js';
import { resizeRow } from './resize/index.js';
import { restoreRow } from './restore/index.js';
import { serveRow } from './serve/index.js';
import { snapshotRow } from './snapshot/index.js';
import { unlockRow } from './unlock/index.js';
import { verifyRow } from './verify/index.js';

/** All commands, in the order in which the help of the program lists them. */
export const COMMANDS: readonly CommandRow[] = [
  copyRow,
  mapRow,
  infoRow,
  compareRow,
  digestRow,
  createRow,
  resizeRow,
  checkRow,
  measureRow,
  snapshotRow,
  amendRow,
  populateRow,
  serveRow,
  bitmapRow,
  commitRow,
  rebaseRow,
  backupRow,
  listRow,
  restoreRow,
  verifyRow,
  pruneRow,
  diffRow,
  unlockRow,
  migrateRow,
  mirrorRow,
  recoverRow,
  daemonRow,
  qmpRow,
  demoRow,
  completionRow,
  helpRow,
];
