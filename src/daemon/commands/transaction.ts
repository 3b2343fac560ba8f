import type { GraphAction } from '../../graph/index.js';
import { type Control, refusal } from '../core/index.js';
import {
  about,
  type Command,
  command,
  list,
  optional,
  struct,
  type Type,
  union,
  type ValuesOf,
  word,
} from '../schema/index.js';
import {
  BITMAP_COMMANDS,
  bitmapActions,
  MERGE,
  NAMED,
  NEW,
  prepareMerge,
} from './bitmap-actions.js';
import { BACKUP, type Backup, backupOptions, listingOf } from './job-options.js';
import { SNAPSHOT, withOverlays } from './snapshot.js';

interface Action {
  readonly type: string;
  readonly data: object;
}

const DATA = {
  'block-dirty-bitmap-add': struct('BlockDirtyBitmapAdd', NEW),
  'block-dirty-bitmap-remove': struct('BlockDirtyBitmap', NAMED),
  'block-dirty-bitmap-clear': struct('BlockDirtyBitmap', NAMED),
  'block-dirty-bitmap-enable': struct('BlockDirtyBitmap', NAMED),
  'block-dirty-bitmap-disable': struct('BlockDirtyBitmap', NAMED),
  'block-dirty-bitmap-merge': struct('BlockDirtyBitmapMerge', MERGE),
  'blockdev-backup': struct('BlockdevBackup', BACKUP),
  'blockdev-snapshot': struct('BlockdevSnapshot', SNAPSHOT),
  abort: struct('Abort', {}),
} as const;

const action: Type<Action> = union('TransactionAction', {
  base: { type: word('TransactionActionKind', ...Object.keys(DATA)) },
  tag: 'type',
  branches: () => Object.fromEntries(Object.entries(DATA).map(([type, data]) => [type, { data }])),
});

/** Several things at one moment. */
export const transactions: readonly Command<Control>[] = [
  command({
    name: 'transaction',
    about: 'Does several things at one moment, or none of them.',
    args: {
      actions: list(action),
      properties: optional(
        struct('TransactionProperties', {
          'completion-mode': about(
            optional(word('ActionCompletionMode', 'individual', 'grouped')),
            '`grouped`: all jobs succeed, or none. Default individual',
          ),
        }),
      ),
    },
    run: async (control: Control, { actions, properties = {} }) => {
      const { 'completion-mode': completion = 'individual' } = properties;
      const prepared = await prepare(control, actions);
      const letGo = control.jobs.reserve(prepared.listings.map(({ id }) => id));
      try {
        await withOverlays(control, prepared.snapshots, async (disks) => {
          const snapshots = disks.map((disk) => ({ type: 'snapshot' as const, ...disk }));
          const begun = await control.graph.transaction(
            [...prepared.actions, ...snapshots],
            prepared.listings.length > 0 ? { completion } : {},
          );
          letGo();
          for (const [i, listing] of prepared.listings.entries()) {
            control.jobs.add(listing, begun.jobs[i] as never);
          }
        });
      } finally {
        letGo();
      }
    },
  }),
];

interface Prepared {
  readonly actions: GraphAction[];
  readonly listings: ReturnType<typeof listingOf<'backup'>>[];
  readonly snapshots: ValuesOf<typeof SNAPSHOT>[];
}

/** Checks all actions in their order, as what comes first is told. */
async function prepare(control: Control, actions: readonly Action[]): Promise<Prepared> {
  const prepared: Prepared = { actions: [], listings: [], snapshots: [] };
  /** Bitmaps that there are only once the transaction has begun. */
  const added = new Set<string>();
  for (const { type, data } of actions) {
    if (type === 'abort') throw refusal('Transaction aborted using Abort action');
    if (type === 'blockdev-snapshot') {
      prepared.snapshots.push(data as ValuesOf<typeof SNAPSHOT>);
    } else if (type === 'blockdev-backup') {
      prepared.listings.push(listingOf(control, 'backup', data));
      prepared.actions.push({ type: 'backup', ...backupOptions(control, data as Backup) });
    } else if (BITMAP_COMMANDS.includes(type)) {
      const { node, name } = data as ValuesOf<typeof NAMED>;
      if (type === 'block-dirty-bitmap-merge') await prepareMerge(control, data as never, added);
      const own = bitmapActions(type)(control, data, added);
      if (type === 'block-dirty-bitmap-add') added.add(JSON.stringify([node, name]));
      prepared.actions.push({ type: 'bitmaps', node, actions: own });
    }
  }
  return prepared;
}
