import { lstatSync, unlinkSync } from 'node:fs';
import type { BackupJobReport, Graph, NodeDescription } from '../../../graph/index.js';
import type { Job } from '../../../job/index.js';
import type { BackupWish } from './watched-job.js';

/** A backup that has its file, and has not begun. */
interface PreparedBackup {
  /** Begins the backup into the file. */
  begin(): Job<BackupJobReport>;
  /** Removes the file again: where the backup could not begin, nothing is in it. */
  takeBack(): void;
}

/** Makes the file of a backup, which replaces none. */
export async function prepareBackup(
  graph: Graph,
  { node, format, rate }: BackupWish,
  filename: string,
): Promise<PreparedBackup> {
  const file = { driver: 'file', filename } as const;
  const image: NodeDescription = format === 'raw' ? file : { driver: 'qcow2', file };
  await graph.create({ image, size: graph.node(node).size });
  const made = lstatSync(filename);
  const begin = () =>
    graph.backup({
      disks: [{ node, target: image }],
      // Nobody has written it since.
      targetIsZero: true,
      ...(rate !== undefined && { rate }),
    });
  const takeBack = () => {
    const now = lstatSync(filename, { throwIfNoEntry: false });
    if (now?.ino === made.ino && now.dev === made.dev) unlinkSync(filename);
  };
  return { begin, takeBack };
}
