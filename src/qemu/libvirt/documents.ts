/** What libvirt is told, as XML. */
import type { PlannedDisk } from '../inspect/index.js';
import { checkpointOf, type SessionNames } from '../state/index.js';
import { makeXml, type XmlTree } from '../virsh/index.js';
import type { DomainDisk } from './disks.js';

export interface BackupDocument {
  readonly names: SessionNames;
  /** What is backed up, in the order of its numbers. */
  readonly plans: readonly PlannedDisk[];
  /** All disks of the domain: what is not named would be backed up too. */
  readonly disks: readonly DomainDisk[];
  readonly base: string | undefined;
  readonly socket: string;
  /** The scratch image of a disk, by its number. */
  scratch(disk: number): string;
}

/** A backup in pull mode, whose exports have the names of the session. */
export function backupXml(given: BackupDocument): string {
  const { plans, disks, socket } = given;
  const others = othersOf(plans, disks).map((name): XmlTree => ['disk', { name, backup: 'no' }]);
  return makeXml([
    'domainbackup',
    { mode: 'pull' },
    ['server', { transport: 'unix', socket }],
    ['disks', {}, ...plans.map((plan, index) => backedUp(given, plan, index)), ...others],
  ]);
}

/** The checkpoint of a new generation; undefined where no disk can have a bitmap. */
export function checkpointXml(
  generation: string,
  plans: readonly PlannedDisk[],
  disks: readonly DomainDisk[],
): string | undefined {
  const covered = plans.filter(({ disk }) => disk.canPersist).map(({ disk }) => disk.name);
  if (covered.length === 0) return undefined;
  const all = disks.map(({ name }): XmlTree => {
    return ['disk', { name, checkpoint: covered.includes(name) ? 'bitmap' : 'no' }];
  });
  return makeXml([
    'domaincheckpoint',
    {},
    ['name', {}, checkpointOf(generation)],
    ['disks', {}, ...all],
  ]);
}

function backedUp(
  { names, base, scratch }: BackupDocument,
  { disk, mode }: PlannedDisk,
  index: number,
): XmlTree {
  const since =
    mode === 'incremental'
      ? { incremental: checkpointOf(base ?? ''), exportbitmap: names.dirty }
      : {};
  return [
    'disk',
    {
      name: disk.name,
      ...{ backup: 'yes', type: 'file', backupmode: mode, exportname: names.export(index) },
      ...since,
    },
    ['scratch', { file: scratch(index) }],
  ];
}

function othersOf(plans: readonly PlannedDisk[], disks: readonly DomainDisk[]): string[] {
  const taken = new Set(plans.map(({ disk }) => disk.name));
  return disks.map(({ name }) => name).filter((name) => !taken.has(name));
}
