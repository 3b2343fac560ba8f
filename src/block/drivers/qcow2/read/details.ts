import {
  type Header,
  Incompatible,
  KNOWN_FEATURES,
  type Snapshot,
} from '../../../../qcow2/index.js';
import { counted } from '../../../../util/index.js';
import type { ImageDetails, Range } from '../../../contract/index.js';

const KINDS = ['incompatible', 'compatible', 'autoclear'] as const;
const BITS = Array.from({ length: 64 }, (_, bit) => bit);

/** What a person would want to know of an image, as plain JSON. */
export function detailsOf(
  header: Header,
  snapshots: readonly Snapshot[],
  chain: ImageDetails['chain'],
): ImageDetails {
  const { backingFile, extensions, clusterBits, refcountOrder } = header;
  return {
    format: 'qcow2',
    version: header.version,
    clusterSize: 2 ** clusterBits,
    refcountBits: 2 ** refcountOrder,
    compression: header.compression,
    features: featuresOf(header),
    ...(backingFile !== undefined && { backingFile }),
    ...(extensions.backingFormat !== undefined && { backingFormat: extensions.backingFormat }),
    ...(extensions.dataFile !== undefined && { dataFile: extensions.dataFile }),
    chain,
    snapshots: snapshots.map(({ id, name, size, seconds, stateSize }) => {
      return { id, name, size, date: new Date(seconds * 1000).toISOString(), stateSize };
    }),
  };
}

/** What the reader of an image should know of it. */
export function warningsOf({ incompatible }: Header, name: string): string[] {
  if ((incompatible & Incompatible.corrupt) === 0n) return [];
  const what = `${name} is marked as corrupt: what is read may not be what the disk held`;
  return [
    `${what}; see what "lacuna check" says of it, and repair a copy with "lacuna check -r all"`,
  ];
}

/** What a person should know of missing ranges. */
export function describeMissing(name: string, missing: readonly Range[]): string[] {
  if (missing.length === 0) return [];
  const bytes = missing.reduce((sum, { length }) => sum + length, 0);
  const [{ offset, length }] = missing;
  const ranges = counted(missing.length, 'range');
  return [
    `${name} is cut short, or a file below it is: ${counted(bytes, 'byte')} of its disk, in ${ranges}, are lost and read as zeroes; the first are ${counted(length, 'byte')} at ${offset}`,
  ];
}

/** The names of the features that are on; a bit without a name here has the image's, or its number. */
function featuresOf(header: Header): string[] {
  const names = [...KNOWN_FEATURES, ...header.extensions.featureNames];
  return KINDS.flatMap((kind) =>
    BITS.filter((bit) => (header[kind] >> BigInt(bit)) & 1n).map(
      (bit) => names.find((n) => n.kind === kind && n.bit === bit)?.name ?? `${kind} bit ${bit}`,
    ),
  );
}
