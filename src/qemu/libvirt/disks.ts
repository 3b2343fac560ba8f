/** The disks of a domain, from its definition. */
import { LacunaError } from '../../errors/index.js';
import type { DiskChoice, DiskInfo } from '../inspect/index.js';
import { childOf, childrenOf, parseXml, type XmlElement } from '../virsh/index.js';
import type { Domain } from './domain.js';

/** A disk of a domain. */
export interface DomainDisk extends DiskInfo {
  /** The files of all its layers, from the top down. */
  readonly layers: readonly string[];
}

/** What a definition says that backups need to know. */
export interface Definition {
  /** Everything that is a disk for the guest. */
  readonly disks: readonly DomainDisk[];
  /** The guest agent is connected. */
  readonly hasAgent: boolean;
  /** The user and the group that QEMU runs as; undefined where libvirt does not change them. */
  readonly user: { readonly uid: number; readonly gid: number } | undefined;
}

const AGENT = 'org.qemu.guest_agent.0';

/** @throws LacunaError ERR_LIBVIRT */
export async function readDefinition(domain: Domain, signal?: AbortSignal): Promise<Definition> {
  const [text, sizes] = await Promise.all([domain.xml(signal), domain.sizes(signal)]);
  const root = parseXml(text, `the definition of ${domain.name}`);
  return {
    disks: disksIn(root).map((disk) => ({ ...disk, size: sizes.get(disk.name) ?? 0 })),
    hasAgent: hasAgent(root),
    user: userOf(root),
  };
}

/** What disks had for files when a checkpoint was made. */
export function filesAt(checkpoint: XmlElement): Map<string, string> {
  const domain = childOf(checkpoint, 'domain');
  const disks = domain === undefined ? [] : disksIn(domain);
  return new Map(disks.map(({ name, file }) => [name, file]));
}

/**
 * The disks that are chosen, by their names; without a choice all that the guest can write.
 *
 * @throws TypeError for a choice by a node. LacunaError ERR_MACHINE_DISK
 */
export function chooseDisks(
  { disks }: Definition,
  choices: readonly DiskChoice[] | undefined,
  domain: string,
): DomainDisk[] {
  const found =
    choices === undefined
      ? disks.filter(({ readOnly }) => !readOnly)
      : [...new Set(choices)].map((choice) => chosen(choice, disks, domain));
  if (found.length > 0) return found;
  throw diskError(domain, 'the domain has no disk that it can write');
}

function chosen(choice: DiskChoice, disks: readonly DomainDisk[], domain: string): DomainDisk {
  if (typeof choice !== 'string') {
    throw new TypeError('the disks of a domain are chosen by their names, such as "vda"');
  }
  const disk = disks.find(({ name }) => name === choice);
  if (disk !== undefined) return disk;
  const names = disks.map(({ name }) => name).join(', ');
  const there = names === '' ? 'it has no disks' : `its disks are ${names}`;
  throw diskError(domain, `there is no disk ${JSON.stringify(choice)}: ${there}`);
}

function disksIn(domain: XmlElement): DomainDisk[] {
  return childrenOf(childOf(domain, 'devices'), 'disk').flatMap((disk) => {
    const device = disk.getAttribute('device') ?? 'disk';
    const name = childOf(disk, 'target')?.getAttribute('dev') ?? '';
    const layers = layersOf(disk);
    if (name === '' || layers.length === 0 || (device !== 'disk' && device !== 'lun')) return [];
    const format = childOf(disk, 'driver')?.getAttribute('type') ?? 'raw';
    const isMirrored = childOf(disk, 'mirror') !== undefined;
    return {
      name,
      file: layers[0],
      layers,
      format,
      size: 0,
      readOnly: childOf(disk, 'readonly') !== undefined,
      canPersist: format === 'qcow2',
      obstacles: isMirrored
        ? [`a copy or a commit of ${name} is running: wait for it, or cancel it`]
        : [],
    };
  });
}

function layersOf(disk: XmlElement): string[] {
  const source = childOf(disk, 'source');
  if (source === undefined) return [];
  const name = ['file', 'dev', 'name', 'volume']
    .map((key) => source.getAttribute(key))
    .find((value) => value !== null);
  const below = childOf(disk, 'backingStore');
  return [name ?? '', ...(below === undefined ? [] : layersOf(below))];
}

function hasAgent(domain: XmlElement): boolean {
  return childrenOf(childOf(domain, 'devices'), 'channel').some((channel) => {
    const target = childOf(channel, 'target');
    const isAgent = target?.getAttribute('name') === AGENT;
    return isAgent && target?.getAttribute('state') === 'connected';
  });
}

function userOf(domain: XmlElement): Definition['user'] {
  const label = childrenOf(domain, 'seclabel').find((one) => one.getAttribute('model') === 'dac');
  const text = (label && childOf(label, 'label')?.textContent) ?? '';
  const [, uid, gid] = /^\+?(\d+):\+?(\d+)$/.exec(text) ?? [];
  return uid === undefined ? undefined : { uid: Number(uid), gid: Number(gid) };
}

function diskError(device: string, what: string): LacunaError {
  return new LacunaError('ERR_MACHINE_DISK', `${device}: ${what}`, { device });
}
