/** What tells a raw disk that may be an image of some format: its first bytes, which are never trusted. */
import type { Driver } from '../contract/index.js';

interface Readable extends Pick<Driver, 'name' | 'size'> {
  read(offset: number, target: Uint8Array): Promise<void>;
}

interface Signature {
  /** QEMU's name of the format. */
  readonly format: string;
  readonly bytes: string;
  /** Where they stand; default 0. */
  readonly at?: number;
  /** Counted from the end of the disk. */
  readonly isFooter?: boolean;
}

const SIGNATURES: readonly Signature[] = [
  { format: 'qcow2', bytes: 'QFI\xfb\0\0\0\x02' },
  { format: 'qcow2', bytes: 'QFI\xfb\0\0\0\x03' },
  { format: 'qcow', bytes: 'QFI\xfb\0\0\0\x01' },
  { format: 'qed', bytes: 'QED\0' },
  { format: 'vmdk', bytes: 'KDMV' },
  { format: 'vmdk', bytes: 'COWD' },
  { format: 'vmdk', bytes: '# Disk DescriptorFile' },
  { format: 'vhdx', bytes: 'vhdxfile' },
  // A VHD that grows begins with a copy of its footer; one of fixed size is a raw disk before it.
  { format: 'vpc', bytes: 'conectix' },
  { format: 'vpc', bytes: 'conectix', at: 512, isFooter: true },
  { format: 'vdi', bytes: '\x7f\x10\xda\xbe', at: 64 },
  { format: 'parallels', bytes: 'WithoutFreeSpace' },
  { format: 'parallels', bytes: 'WithouFreSpacExt' },
  { format: 'luks', bytes: 'LUKS\xba\xbe' },
  { format: 'bochs', bytes: 'Bochs Virtual HD Image' },
];

const SECTOR = 512;

/** The format that a device seems to have, by its first and last bytes; undefined also where they cannot be read. */
async function seemingFormat(driver: Readable): Promise<Signature | undefined> {
  const length = Math.min(SECTOR, driver.size);
  const [head, tail] = [Buffer.alloc(length), Buffer.alloc(length)];
  try {
    await driver.read(0, head);
    await driver.read(driver.size - length, tail);
  } catch {
    // Whoever reads the disk will be told.
    return undefined;
  }
  return SIGNATURES.find(({ bytes, at = 0, isFooter }) => {
    const [place, from] = isFooter ? [tail, length - at] : [head, at];
    return (
      from >= 0 && place.subarray(from, from + bytes.length).equals(Buffer.from(bytes, 'latin1'))
    );
  });
}

/** The names that people have for formats, where QEMU's is another. */
const NAMES: Readonly<Record<string, string>> = { vpc: 'VHD', luks: 'LUKS' };

/**
 * Warns of a disk that is taken for raw by its name alone, and looks like an image. It stays raw: a guest may have
 * written such bytes.
 */
export async function warnOfSignature(driver: Readable): Promise<string[]> {
  const found = await seemingFormat(driver);
  if (found === undefined) return [];
  const { format, isFooter } = found;
  const name = NAMES[format] ?? format;
  const what = `${driver.name} ${isFooter ? 'ends' : 'begins'} like a ${name} image`;
  return [`${what}; if it is one, ${advice(format)}; it is taken for raw: -f raw says so`];
}

function advice(format: string): string {
  if (format === 'qcow2') return 'say -f qcow2';
  if (format === 'luks') return 'its bytes stay encrypted';
  return `serve it with "qemu-nbd -f ${format} ..." and name its NBD URI`;
}
