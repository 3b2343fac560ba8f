import { join } from 'node:path';
import { type Command, Option } from 'commander';
import { Bitmap } from '../../../bitmap/index.js';
import { type BlockDevice, createRawFile, openDevice } from '../../../block/index.js';
import { copy } from '../../../copy/index.js';
import { counted } from '../../../util/index.js';
import { parseBytes } from '../../device/index.js';
import { printable, type Shell } from '../../shell/index.js';
import { formatBytes, formatDuration } from '../../text/index.js';
import { compareWithBar, type PictureRow, renderCells, showCopy } from '../../view/index.js';
import { makeDemoFolder } from './demo-folder.js';
import { Guest } from './demo-guest.js';
import { allocationOf, type CellsSize, dataExtents, dirtinessOf } from './demo-picture.js';
import { indented, Story } from './story.js';

const MIB = 1024 * 1024;
const SMALLEST_DISK = 64 * MIB;
const MOST_DATA = 256 * MIB;
const MOST_LIVE_DATA = 64 * MIB;
/** Beside the data itself: metadata of the file system, and what others write meanwhile. */
const SPARE_SPACE = 64 * MIB;
const GRANULARITY = 64 * 1024;
/** Read to tell what a plain copy would take. */
const PLAIN_SAMPLE = 256 * MIB;

interface DemoFlags {
  size: number;
  folder?: string;
  keep?: boolean;
  live?: boolean;
}

const SIZE_OPTION = new Option('--size <size>', 'size of the disk')
  .argParser(parseBytes)
  .default(2 ** 40, '1T');

const EXAMPLES = `
Examples:
  lacuna demo
  lacuna demo --size 100G --folder /var/tmp --keep
  lacuna demo --live

It takes about 600 MiB of space, less for a small disk, and gives it back at the end.`;

/** Tells commander what `lacuna demo` takes, and what it does. */
export function registerDemo(command: Command, shell: Shell): void {
  command
    .description(
      'Makes a large sparse disk, copies it, changes it, and brings the copy up to date.',
    )
    .addOption(SIZE_OPTION)
    .option('--live', 'back up a running machine instead: needs a QEMU, which it starts and ends')
    .option('--folder <path>', 'where to make it (default: the folder for temporary files)')
    .option('--keep', 'leave both disks there, to look at them')
    .addHelpText('after', EXAMPLES)
    .action((flags: DemoFlags) => demoCommand(flags, shell));
}

async function demoCommand(flags: DemoFlags, shell: Shell): Promise<void> {
  const { size, keep = false, live = false } = flags;
  if (size < SMALLEST_DISK) {
    throw new RangeError(`--size must be ${formatBytes(SMALLEST_DISK)} or more`);
  }
  const dataBytes = Math.min(live ? MOST_LIVE_DATA : MOST_DATA, Math.floor(size / 8));
  // The disk and its copies: one, or a backup and what is restored from it.
  const needBytes = (live ? 4 : 2) * dataBytes + SPARE_SPACE;
  const folder = await makeDemoFolder({ parent: flags.folder, needBytes, keep });
  try {
    const disk = { size, dataBytes };
    await (live ? liveDemo(folder.path, disk, shell) : new Demo(folder.path, disk, shell).run());
    if (keep) await shell.print(`\nThe disks are left in ${printable(folder.path)}.\n`);
  } finally {
    await folder.remove();
  }
}

async function liveDemo(
  folder: string,
  disk: { size: number; dataBytes: number },
  shell: Shell,
): Promise<void> {
  const { LiveDemo } = await import('./live-demo.js');
  await new LiveDemo(folder, disk, shell).run();
}

/** The story, a step at a time. Every figure that it prints was measured in this run. */
class Demo extends Story {
  readonly #size: number;
  readonly #dataBytes: number;
  readonly #source: string;
  readonly #target: string;

  constructor(folder: string, disk: { size: number; dataBytes: number }, shell: Shell) {
    super(shell);
    this.#size = disk.size;
    this.#dataBytes = disk.dataBytes;
    this.#source = join(folder, 'disk.raw');
    this.#target = join(folder, 'copy.raw');
  }

  async run(): Promise<void> {
    const { signal } = this.shell;
    await createRawFile(this.#source, this.#size);
    const device = await openDevice(this.#source, { writable: true, signal });
    const dirty = new Bitmap({ size: this.#size, granularity: GRANULARITY });
    try {
      const guest = new Guest(device, signal);
      await this.#fill(guest, device);
      const full = await this.#copyAll(device);
      await this.#change(guest, device, dirty);
      const increment = await this.#copyDirty(device, dirty);
      await this.#verify(device);
      await this.#conclude(full + increment);
    } finally {
      dirty.free();
      await device.close();
    }
  }

  async #fill(guest: Guest, device: BlockDevice): Promise<void> {
    const { bytes } = await guest.scatter(this.#dataBytes, 24);
    await device.flush({ signal: this.shell.signal });
    const written = `A machine has a disk of ${formatBytes(this.#size)}, and wrote ${formatBytes(bytes)} to it`;
    await this.title(written);
    const row = await allocationOf(device, this.#cells, this.shell.signal);
    await this.#draw(row);
    const cell = formatBytes(row.cells.sizeOf(0));
    const [some, all, none] = this.shell.unicode ? ['░', '█', '·'] : ['-', '#', '.'];
    await this.say(
      `One sign is ${cell}: from ${some} (some data) to ${all} (all of it); ${none} is none.`,
    );
  }

  async #copyAll(source: BlockDevice): Promise<number> {
    await this.title('Copy it: ask where the data is, and read only that');
    const job = copy({ source, target: this.#target, signal: this.shell.signal });
    const { movedBytes, durationMs } = await showCopy(job, this.shell);
    const size = formatBytes(this.#size);
    const plain = formatDuration(await plainReadMs(source, this.shell.signal));
    await this.say(
      `Moved ${formatBytes(movedBytes)} in ${formatDuration(durationMs)}; the rest is known to be zero.`,
      `A plain copy reads ${size}, which alone takes ${plain} here, and fills ${size}.`,
    );
    return movedBytes;
  }

  async #change(guest: Guest, device: BlockDevice, dirty: Bitmap): Promise<void> {
    await this.title('The machine runs on, and a bitmap notes what it changes');
    guest.tracker = dirty;
    const fresh = await guest.scatter(this.#dataBytes / 32, 4);
    const extents = await dataExtents(device, this.shell.signal);
    const old = extents.filter((_, i) => i % 10 === 0).map(({ offset }) => offset);
    const again = await guest.overwrite(old, 4096);
    const trimmed = extents[Math.floor(extents.length / 3)];
    const zeroedBytes = Math.min(Math.floor(this.#size / 8), this.#size - trimmed.offset);
    await guest.zero(trimmed.offset, zeroedBytes);
    await device.flush({ signal: this.shell.signal });
    await this.#draw(dirtinessOf(dirty, this.#cells));
    const places = `${counted(fresh.places, 'new place')} and over ${counted(again.places, 'old one')}`;
    await this.say(`It wrote to ${places}, and zeroed ${formatBytes(zeroedBytes)}.`);
    const { equal } = await this.#compare(device);
    if (equal) throw new Error('the copy should differ now; please report this');
  }

  async #copyDirty(source: BlockDevice, bitmap: Bitmap): Promise<number> {
    await this.title('Bring the copy up to date: move what is dirty, zero what became zero');
    const { signal } = this.shell;
    const job = copy({ source, target: this.#target, bitmap, signal });
    const { movedBytes, zeroedBytes, durationMs } = await showCopy(job, this.shell);
    const deeds = `Moved ${formatBytes(movedBytes)} and zeroed ${formatBytes(zeroedBytes)}`;
    await this.say(`${deeds} in ${formatDuration(durationMs)}; a plain copy begins again.`);
    return movedBytes;
  }

  async #verify(source: BlockDevice): Promise<void> {
    await this.title('Compare both disks, byte by byte');
    const { equal, offset, comparedBytes } = await this.#compare(source);
    if (!equal) throw new Error(`the copy differs at byte ${offset}; please report this`);
    const read = formatBytes(comparedBytes);
    await this.say(`Equal. ${read} of each were read; the rest is known to be zero on both.`);
  }

  #conclude(movedBytes: number): Promise<void> {
    const times = Math.round((2 * this.#size) / movedBytes).toLocaleString('en');
    // Who came here through npm has no command of that name yet.
    const lacuna = process.env.npm_lifecycle_event === undefined ? 'lacuna' : 'npx lacuna';
    return this.shell.print(
      [
        '',
        `Two plain copies read ${times} times as much. Try next:`,
        `   ${lacuna} demo --live              # backs up a running QEMU machine`,
        `   ${lacuna} map disk.raw             # where a disk of yours has data`,
        `   ${lacuna} copy --dry-run disk.raw  # what a copy of it would move`,
        '',
      ].join('\n'),
    );
  }

  #compare(source: BlockDevice) {
    const { signal } = this.shell;
    return compareWithBar({ a: source, b: this.#target, signal }, this.shell);
  }

  get #cells(): CellsSize {
    return { size: this.#size, count: Math.min(100, this.shell.width - 4) };
  }

  #draw(row: PictureRow): Promise<void> {
    return this.shell.paint(indented([renderCells(row, this.shell)]));
  }
}

/** What reading a whole disk would take, by a part at its end, which is in no cache of what was just copied. */
async function plainReadMs(device: BlockDevice, signal: AbortSignal): Promise<number> {
  const sample = Math.min(device.size, PLAIN_SAMPLE);
  const buffer = new Uint8Array(MIB);
  const started = performance.now();
  for (let at = device.size - sample; at < device.size; at += MIB) {
    await device.read(at, buffer.subarray(0, Math.min(MIB, device.size - at)), { signal });
  }
  return ((performance.now() - started) * device.size) / sample;
}
