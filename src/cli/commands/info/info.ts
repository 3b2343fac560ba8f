import type { Command } from 'commander';
import type { BlockDevice } from '../../../block/index.js';
import { Context } from '../../../extent/index.js';
import { counted } from '../../../util/index.js';
import {
  addRescueFlag,
  addSourceFlags,
  kindsOf,
  noteMissing,
  openSource,
  type SourceFlags,
  walkExtents,
} from '../../device/index.js';
import { Exit, noteWarnings, printable, type Shell } from '../../shell/index.js';
import { formatBytes, formatShare } from '../../text/index.js';
import { type LayerInfo, layersOf } from './chain-space.js';

interface InfoFlags extends SourceFlags {
  backingChain?: boolean;
  list?: boolean;
  json?: boolean;
}

/** What `lacuna info --json` prints. */
export interface DeviceInfo {
  name: string;
  driver?: string;
  /** Bytes. */
  size: number;
  limits: BlockDevice['limits'];
  capabilities: Omit<BlockDevice['capabilities'], 'contexts' | 'contextsTogether'>;
  contexts: readonly string[];
  /** What an image says of itself; absent where the device is none. */
  image?: BlockDevice['details'];
  /** Bytes by status; absent where the device cannot tell, null where it would take too many answers. */
  allocation?: { data: number; zero: number; hole: number } | null;
  /** What a person should know of what is read. */
  warnings: readonly string[];
}

const EXAMPLES = `
The device is opened for reading, so it does not tell whether it could be written.

Examples:
  lacuna info disk.raw
  lacuna info --json nbd://host/vda | jq .allocation.data
  lacuna info disk.qcow2                      # its version, features, backing files and snapshots too
  lacuna info --list nbd://host               # an NBD server, and what each of its exports can do
  lacuna info --backing-chain disk.qcow2      # the space that each file of the chain takes`;

/** Tells commander what `lacuna info` takes, and what it does. */
export function registerInfo(command: Command, shell: Shell): void {
  command
    .description('Shows the size of a device, what it can do, and how much of it is allocated.')
    .argument('<source>', 'the device to look at');
  addRescueFlag(addSourceFlags(command))
    .option(
      '--backing-chain',
      'describe the image and all below it, with the space that the files of each take',
    )
    .option('-L, --list', 'describe an NBD server and all of its exports; SOURCE is an NBD URI')
    .option('--json', 'print one JSON document; with --backing-chain an array, as qemu-img does')
    .addHelpText('after', EXAMPLES)
    .action((source: string, flags: InfoFlags) => infoCommand(source, flags, shell));
}

async function infoCommand(source: string, flags: InfoFlags, shell: Shell): Promise<void> {
  if (flags.list) return await tellServer(source, flags, shell);
  const device = await openSource(source, flags, { signal: shell.signal });
  try {
    if (flags.backingChain) return await tellChain(device, flags, shell);
    const info = await inspect(device, shell.signal);
    if (info.allocation === null) shell.exitCode = Exit.leftOut;
    noteWarnings(info.warnings, shell);
    noteMissing(device, shell);
    await shell.print(flags.json ? `${JSON.stringify(info, null, 2)}\n` : describeDevice(info));
  } finally {
    await device.close();
  }
}

/** Nothing is opened: so what says how a device is opened has no meaning. */
async function tellServer(source: string, flags: InfoFlags, shell: Shell): Promise<void> {
  const { format, forceShare, backingFolder, rescue, backingChain, json } = flags;
  if (format ?? forceShare ?? backingFolder ?? rescue ?? backingChain) {
    throw new TypeError('--list asks a server for its exports: leave out what opens a device');
  }
  const { askServer, describeServer } = await import('./server-info.js');
  const info = await askServer(source, shell.signal);
  await shell.print(json ? `${JSON.stringify(info, null, 2)}\n` : describeServer(info));
}

async function tellChain(device: BlockDevice, { json }: InfoFlags, shell: Shell): Promise<void> {
  noteWarnings(device.warnings, shell);
  noteMissing(device, shell);
  const layers = layersOf(device);
  await shell.print(json ? `${JSON.stringify(layers, null, 2)}\n` : layers.map(lineOf).join(''));
}

/** One layer of a chain for people. */
function lineOf(layer: LayerInfo): string {
  const { filename, format, 'virtual-size': size, 'actual-size': space } = layer;
  const takes = space === undefined ? '' : `, takes ${formatBytes(space)}`;
  return `layer     ${printable(filename)} (${printable(format)}, ${formatBytes(size)}${takes})\n`;
}

async function inspect(device: BlockDevice, signal: AbortSignal): Promise<DeviceInfo> {
  const { contexts, contextsTogether: _together, ...capabilities } = device.capabilities;
  const { driver } = device.description ?? {};
  const tells = contexts.includes(Context.allocation);
  const allocation = tells ? await allocationOf(device, signal) : undefined;
  return {
    name: device.name,
    ...(driver !== undefined && { driver }),
    size: device.size,
    limits: device.limits,
    capabilities,
    contexts,
    ...(device.details !== undefined && { image: device.details }),
    ...(tells && { allocation: allocation ?? null }),
    warnings: [...device.warnings, ...(tells && allocation === undefined ? [tooMuch(device)] : [])],
  };
}

/**
 * So many are always waited for. One may speak of no more than 4 GiB where a server has no extended headers: of a disk of
 * 8 PiB that would be two millions.
 */
const FEW_ANSWERS = 2 ** 13;
/** More than those only for so long. */
const PATIENCE_MS = 10_000;

/** Undefined where it would take too many answers, and too long. */
async function allocationOf(device: BlockDevice, signal: AbortSignal) {
  const { kindOf } = kindsOf(Context.allocation);
  const bytes = [0, 0, 0];
  let answers = 0;
  const began = performance.now();
  const tooMany = new Error('too many answers');
  const limited: Pick<BlockDevice, 'size' | 'someExtents'> = {
    size: device.size,
    someExtents: async (offset, length, options) => {
      const isLong = answers++ >= FEW_ANSWERS && performance.now() - began > PATIENCE_MS;
      if (isLong) throw tooMany;
      return device.someExtents(offset, length, options);
    },
  };
  try {
    for await (const ranges of walkExtents(limited, { contexts: [Context.allocation], signal })) {
      for (const { length, flags } of ranges) bytes[kindOf(flags[0])] += length;
    }
  } catch (error) {
    if (error === tooMany) return undefined;
    throw error;
  }
  const [data, zero, hole] = bytes;
  return { data, zero, hole };
}

function tooMuch({ name }: BlockDevice): string {
  const what = `how much of ${name} is allocated is left out: it tells its status in too small parts`;
  return `${what}; "lacuna map" asks for all of them, which takes long`;
}

type Ability = keyof DeviceInfo['capabilities'];

const ABILITIES: Record<Ability, string> = {
  write: 'write',
  zero: 'zero',
  fastZero: 'fast zero',
  discard: 'discard',
  flush: 'flush',
  exactStatus: 'tell its status exactly',
  multiConnection: 'be opened several times',
  knownZero: 'be known to read as zero',
};

/** The same for people: one line for each thing, and only what the device has. */
function describeDevice(info: DeviceInfo): string {
  const { limits, capabilities, size } = info;
  const abilities = Object.entries(ABILITIES).filter(([name]) => capabilities[name as Ability]);
  const lines: Array<[string, string]> = [
    ['name', printable(info.name)],
    ...(info.driver === undefined ? [] : [['driver', info.driver] as [string, string]]),
    ['size', `${formatBytes(size)} (${counted(size, 'byte')})`],
    ['requests', describeLimits(limits)],
    ['can', ['read', ...abilities.map(([, words]) => words)].join(', ')],
    ['contexts', info.contexts.map(printable).join(', ') || 'none'],
    ...(info.image === undefined ? [] : describeImage(info.image)),
  ];
  for (const [kind, bytes] of Object.entries(info.allocation ?? {})) {
    lines.push([kind, `${formatBytes(bytes)} (${formatShare(bytes, size)})`]);
  }
  return lines.map(([label, text]) => `${label.padEnd(9)} ${text}\n`).join('');
}

function describeImage(image: NonNullable<DeviceInfo['image']>): Array<[string, string]> {
  const { format, version, clusterSize, compression, refcountBits, features } = image;
  const clusters = `clusters of ${formatBytes(clusterSize)}`;
  const about = `${format} version ${version}, ${clusters}, ${compression}, refcounts of ${refcountBits} bits`;
  return [
    ['image', about],
    ...line('features', features.join(', ')),
    ...line('data file', image.dataFile),
    ...image.chain.map(({ name, driver, size }): [string, string] => {
      return ['backing', `${printable(name)} (${printable(driver)}, ${formatBytes(size)})`];
    }),
    ...image.snapshots.map(({ id, name, size, date }): [string, string] => {
      return ['snapshot', `${printable(id)}: ${printable(name)} (${formatBytes(size)}, ${date})`];
    }),
  ];
}

/** One line, where there is something to say. */
function line(label: string, text: string | undefined): Array<[string, string]> {
  return text === undefined || text === '' ? [] : [[label, printable(text)]];
}

function describeLimits({ minimum, preferred, maximum }: BlockDevice['limits']): string {
  const [least, best, most] = [minimum, preferred, maximum].map(formatBytes);
  return `at least ${least}, best ${best}, at most ${most}`;
}
