import type { BitmapAction } from '../../bitmap/index.js';
import { throwIfAborted } from '../../errors/index.js';
import { checkGiven, optionCheck } from '../../util/index.js';
import {
  type BitmapChange,
  type Changer,
  type Changes,
  joinedChanges,
  type Node,
} from '../core/index.js';
import {
  type BackupJobOptions,
  type BackupJobReport,
  backupPart,
  type CommitJob,
  type CommitJobOptions,
  commitPart,
  type GraphJob,
  JobGroup,
  type JobPart,
  type MirrorJob,
  type MirrorOptions,
  mirrorPart,
  type PopulateJobOptions,
  type PopulateJobReport,
  populatePart,
  type StreamJobOptions,
  type StreamJobReport,
  streamPart,
} from '../jobs/index.js';
import {
  type ChildReplacement,
  checkReplacement,
  expectedNow,
  resolveReplacement,
} from '../options/index.js';
import { checkSnapshotDisk, openOverlay, type SnapshotDisk } from '../snapshot/index.js';
import { checkApart } from './check-apart.js';
import { undoable } from './undoable.js';

/** One part of a transaction. */
export type GraphAction =
  | {
      readonly type: 'bitmaps';
      /** The name of the node. */
      readonly node: string;
      /** What is done to its bitmaps, in order. */
      readonly actions: readonly BitmapAction[];
    }
  | ({ readonly type: 'snapshot' } & SnapshotDisk)
  | ({ readonly type: 'replace-child' } & ChildReplacement)
  | ({ readonly type: 'backup' } & BackupJobOptions)
  | ({ readonly type: 'commit' } & CommitJobOptions)
  | ({ readonly type: 'mirror' } & MirrorOptions)
  | ({ readonly type: 'populate' } & PopulateJobOptions)
  | ({ readonly type: 'stream' } & StreamJobOptions);

/** A job that a transaction has begun. */
export type TransactionJob =
  | GraphJob<BackupJobReport>
  | CommitJob
  | MirrorJob
  | GraphJob<PopulateJobReport>
  | GraphJob<StreamJobReport>;

/** How a transaction ends. */
export interface TransactionOptions {
  /**
   * `individual`: each job ends by itself; `grouped`: all jobs succeed, at one moment, or all fail, and bitmaps are as if the transaction
   * had not been, but for what was written since. Default `individual`.
   */
  readonly completion?: 'individual' | 'grouped';
}

/** What a transaction has begun. */
export interface TransactionResult {
  /** The new layers, in the order of the snapshots. */
  readonly nodes: readonly Node[];
  /** The jobs, in the order of their actions. */
  readonly jobs: readonly TransactionJob[];
}

const check = optionCheck<TransactionOptions>({ completion: 'any' });
const checkBitmaps = optionCheck<{ type: string; node: string; actions: unknown }>({
  type: { needed: 'bitmaps' },
  node: { needed: 'the name of the node' },
  actions: { needed: 'what is done to its bitmaps' },
});

/** What one action brings into the transaction. */
interface Part {
  prepare(): Promise<Partial<Changes>>;
  takeBack?(): Promise<void>;
  readonly job?: JobPart<TransactionJob>;
}

/**
 * Does several things to a graph at one moment; see `Graph.transaction`.
 *
 * @param keep is told of each job at once, before the graph can be closed.
 */
export async function transaction(
  changer: Changer,
  actions: readonly GraphAction[],
  options: TransactionOptions,
  keep: (job: TransactionJob) => void,
): Promise<TransactionResult> {
  const isGrouped = endsGrouped(options);
  if (!Array.isArray(actions)) throw new TypeError('actions must be a list');
  const group = isGrouped ? new JobGroup(changer) : undefined;
  const opened: Node[] = [];
  const parts = actions.map((action, i) =>
    partOf(changer, action, `actions[${i}]`, { group, opened }),
  );
  const jobs = parts.flatMap(({ job }) => job ?? []);
  if (group !== undefined && jobs.length === 0) {
    throw new TypeError('completion grouped is for jobs: there is none');
  }
  return changer.run(async () => {
    const prepared: Part[] = [];
    const all: Partial<Changes>[] = [];
    try {
      for (const { signal } of jobs) throwIfAborted(signal);
      for (const part of parts) {
        prepared.push(part);
        all.push(await part.prepare());
      }
      if (group !== undefined) checkApart(changer, all);
      await changer.change(joinedChanges(all));
    } catch (error) {
      for (const part of prepared.reverse()) await part.takeBack?.();
      await changer.takeBack([], [...opened].reverse());
      throw error;
    }
    const begun = jobs.map((job) => job.start(group ?? new JobGroup(changer)));
    for (const job of begun) keep(job);
    return { nodes: opened, jobs: begun };
  });
}

function endsGrouped(options: TransactionOptions): boolean {
  check('Graph.transaction', options);
  const { completion = 'individual' } = options;
  if (completion === 'individual' || completion === 'grouped') return completion === 'grouped';
  throw new TypeError(`completion must be individual or grouped, not ${completion}`);
}

interface With {
  readonly group: JobGroup | undefined;
  readonly opened: Node[];
}

function partOf(
  changer: Changer,
  action: GraphAction,
  where: string,
  { group, opened }: With,
): Part {
  checkGiven('Graph.transaction', where, action, '{ type, ... }');
  const { type, ...own } = action;
  switch (type) {
    case 'bitmaps':
      return bitmapsPart(changer, action as never, group);
    case 'snapshot': {
      const disk = own as SnapshotDisk;
      checkSnapshotDisk(`Graph.transaction: ${where}`, disk);
      return { prepare: () => openOverlay(changer, disk, opened) };
    }
    case 'replace-child': {
      const meant = own as ChildReplacement;
      checkReplacement(`Graph.transaction: ${where}`, meant);
      const expected = expectedNow(changer, meant);
      return { prepare: async () => ({ edges: [resolveReplacement(changer, meant, expected)] }) };
    }
    case 'backup':
      return jobPart(backupPart(changer, own as BackupJobOptions, group !== undefined));
    case 'commit':
    case 'mirror':
    case 'stream':
      return jobPart(MOVERS[type](changer, own as never));
    case 'populate':
      return jobPart(populatePart(changer, own as PopulateJobOptions));
    default: {
      const known = 'bitmaps, snapshot, replace-child, backup, commit, mirror, populate or stream';
      throw new TypeError(`${where} must have the type ${known}, not ${type as unknown}`);
    }
  }
}

/** Jobs after which a disk lies elsewhere. */
const MOVERS = { commit: commitPart, mirror: mirrorPart, stream: streamPart };

function jobPart(job: JobPart<TransactionJob>): Part {
  return { prepare: () => job.prepare(), takeBack: () => job.takeBack(), job };
}

function bitmapsPart(
  changer: Changer,
  action: Extract<GraphAction, { type: 'bitmaps' }>,
  group: JobGroup | undefined,
): Part {
  checkBitmaps('a bitmaps action', action);
  const { node: name, actions } = action;
  if (!Array.isArray(actions))
    throw new TypeError(`actions for the bitmaps of '${name}' must be a list`);
  const done = group === undefined ? undefined : undoable(actions);
  return {
    prepare: async () => {
      const node = changer.state.node(name);
      if (done === undefined || group === undefined) return { bitmaps: [{ node, actions }] };
      const change = (list: readonly BitmapAction[]): BitmapChange[] => [{ node, actions: list }];
      group.bitmaps.good.push(...change(done.good));
      group.bitmaps.bad.push(...change(done.bad));
      return { bitmaps: change(done.begin) };
    },
  };
}
