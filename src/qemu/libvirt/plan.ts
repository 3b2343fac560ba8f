/** What a backup of a domain would do, disk by disk, and why. */
import { LacunaError } from '../../errors/index.js';
import type { PlannedDisk } from '../inspect/index.js';
import {
  type BackupOptions,
  type BackupPlan,
  type BackupPlanOptions,
  freeBytes,
} from '../session/index.js';
import { checkpointOf, isCheckpoint, prefixOf } from '../state/index.js';
import { childOf, parseXml } from '../virsh/index.js';
import { chooseDisks, type Definition, type DomainDisk, filesAt, readDefinition } from './disks.js';
import type { Domain } from './domain.js';

/** What a backup of a domain would do. */
export interface DomainPlan extends Omit<BackupPlan, 'disks'> {
  /** What it does with each disk, and why. */
  readonly disks: readonly PlannedDisk[];
}

/** With what the session needs besides. */
export interface PlannedDomain {
  readonly plan: DomainPlan;
  readonly definition: Definition;
  /** The checkpoint of the base, where its bitmaps cannot be used any more. */
  readonly broken: string | undefined;
}

/** Looks at the domain, and changes nothing. */
export async function planDomain(
  domain: Domain,
  folder: string,
  options: BackupPlanOptions & Pick<BackupOptions, 'generation'>,
): Promise<PlannedDomain> {
  const { signal, base, mode = 'auto', generation } = options;
  refuseUnsupported(domain, options);
  const definition = await readDefinition(domain, signal);
  const disks = chooseDisks(definition, options.disks, domain.name);
  const checkpoints = await domain.checkpoints(signal);
  const obstacles = [
    ...(await obstaclesOf(domain)),
    ...disks.flatMap((disk) => disk.obstacles),
    ...(generation !== undefined && checkpoints.includes(checkpointOf(generation))
      ? [`the domain has a checkpoint of this generation already`]
      : []),
  ];
  const since = await whatIsMarked(domain, base, checkpoints);
  const plans =
    mode === 'auto'
      ? disks.map((disk) => planDisk(disk, since))
      : disks.map((disk) => full(disk, `a ${mode === 'full' ? 'full backup' : mode} is asked for`));
  return {
    plan: {
      ...{ disks: plans, view: 'overlay', fetch: 'pull', obstacles },
      scratchFreeBytes: await freeBytes(folder),
    },
    definition,
    broken: since.broken,
  };
}

/** @throws LacunaError ERR_QMP_UNSUPPORTED for what libvirt cannot */
function refuseUnsupported({ name: device }: Domain, { view, fetch }: BackupPlanOptions): void {
  if (view === 'access') {
    throw new LacunaError(
      'ERR_QMP_UNSUPPORTED',
      `${device}: libvirt holds a point in time with an overlay: leave out view`,
      { device },
    );
  }
  if (fetch === 'push') {
    throw new LacunaError(
      'ERR_QMP_UNSUPPORTED',
      `${device}: what libvirt pushes, it reads from the disks themselves, and the guest waits for the server: fetch by pull`,
      { device },
    );
  }
}

async function obstaclesOf(domain: Domain): Promise<string[]> {
  if (!(await domain.isRunning())) {
    return ['the domain is not running: back up its disks as disks at rest'];
  }
  const backup = await domain.backup();
  if (backup === undefined) return [];
  const socket = childOf(backup, 'server')?.getAttribute('socket') ?? '';
  const isOurs = sessionAt(socket) !== undefined;
  return [
    isOurs
      ? 'a backup of the domain is running, or has left its job: wait for it, or call recover()'
      : 'another backup of the domain is running: wait for it, or end it (virsh domjobabort)',
  ];
}

/** The prefix of the session whose NBD server has this socket. */
export function sessionAt(socket: string): string | undefined {
  return socket
    .split('/')
    .map((part) => prefixOf(`${part}-`))
    .find((prefix) => prefix !== undefined);
}

/** What the checkpoint of a base marks. */
interface Marked {
  readonly checkpoint: string;
  /** Why it cannot be used at all. */
  readonly fault?: string;
  readonly broken?: string;
  readonly dirty: ReadonlyMap<string, number>;
  readonly files: ReadonlyMap<string, string>;
}

async function whatIsMarked(
  domain: Domain,
  base: string | undefined,
  checkpoints: readonly string[],
): Promise<Marked> {
  const none = { dirty: new Map(), files: new Map() };
  if (base === undefined) return { ...none, checkpoint: '', fault: whyNoBase(checkpoints) };
  const checkpoint = checkpointOf(base);
  if (!checkpoints.includes(checkpoint)) {
    return { ...none, checkpoint, fault: `there is no checkpoint "${checkpoint}"` };
  }
  try {
    const dirty = await domain.dirtyBytes(checkpoint);
    const text = await domain.checkpointXml(checkpoint);
    const files = filesAt(parseXml(text, 'the checkpoint'));
    // A bitmap that lacks writes, because QEMU was killed, still has a size.
    if (await domain.isRunning()) await domain.validate(text);
    return { checkpoint, dirty, files };
  } catch (error) {
    const isRefused = error instanceof LacunaError && error.code === 'ERR_LIBVIRT';
    if (!isRefused) throw error;
    const fault = `the bitmaps of the checkpoint "${checkpoint}" cannot be used: ${error.message}`;
    // Of a domain at rest nothing is known.
    const isBroken = await domain.isRunning();
    return { ...none, checkpoint, fault, ...(isBroken && { broken: checkpoint }) };
  }
}

/** An increment over a backup that another tool has made would be of no use: nobody here can restore that. */
function whyNoBase(checkpoints: readonly string[]): string {
  const others = checkpoints.filter((name) => !isCheckpoint(name));
  const why = 'no earlier backup is given';
  if (others.length === 0) return why;
  const names = others.map((name) => `"${name}"`).join(', ');
  return `${why}, and the checkpoints of other tools (${names}) count from backups that are not here`;
}

function planDisk(disk: DomainDisk, { checkpoint, fault, dirty, files }: Marked): PlannedDisk {
  const dirtyBytes = dirty.get(disk.name);
  if (fault !== undefined || dirtyBytes === undefined) {
    const why = fault ?? `the checkpoint "${checkpoint}" does not cover this disk`;
    return full(disk, checkpoint === '' ? why : (whyNone(disk) ?? why));
  }
  const file = files.get(disk.name) ?? '';
  if (!disk.layers.includes(file)) {
    return full(disk, `it was on ${file} in that backup: the disk was exchanged since`);
  }
  const reason = `the checkpoint "${checkpoint}" has marked every write since that backup`;
  return { disk, mode: 'incremental', reason, dirtyBytes };
}

function whyNone({ format, canPersist }: DomainDisk): string | undefined {
  return canPersist ? undefined : `libvirt keeps no bitmaps of ${format} disks`;
}

function full(disk: DomainDisk, reason: string): PlannedDisk {
  return { disk, mode: 'full', reason };
}
