/** "incompatible_features": who does not know a bit that is set must not open the image. */
export const Incompatible = {
  /** Refcounts may be wrong; the mapping of clusters is right. */
  dirty: 1n << 0n,
  /** Anything may be wrong: the image must not be written. */
  corrupt: 1n << 1n,
  dataFile: 1n << 2n,
  /** The field `compression_type` is not 0. */
  compression: 1n << 3n,
  extendedL2: 1n << 4n,
} as const;

/** "compatible_features": may be ignored. */
export const Compatible = { lazyRefcounts: 1n << 0n } as const;

/** "autoclear_features": who does not know a bit must clear it before writing. */
export const Autoclear = {
  /** The bitmaps extension is consistent. */
  bitmaps: 1n << 0n,
  /** The external data file is a raw image of the whole disk. */
  rawDataFile: 1n << 1n,
} as const;

/** "Feature name table": what a bit is called. */
export interface FeatureName {
  readonly kind: 'incompatible' | 'compatible' | 'autoclear';
  readonly bit: number;
  readonly name: string;
}

export const FEATURE_KINDS = ['incompatible', 'compatible', 'autoclear'] as const;

/** The features known here, with the names that QEMU gives them in its table. */
export const KNOWN_FEATURES: readonly FeatureName[] = [
  { kind: 'incompatible', bit: 0, name: 'dirty bit' },
  { kind: 'incompatible', bit: 1, name: 'corrupt bit' },
  { kind: 'incompatible', bit: 2, name: 'external data file' },
  { kind: 'incompatible', bit: 3, name: 'compression type' },
  { kind: 'incompatible', bit: 4, name: 'extended L2 entries' },
  { kind: 'compatible', bit: 0, name: 'lazy refcounts' },
  { kind: 'autoclear', bit: 0, name: 'bitmaps' },
  { kind: 'autoclear', bit: 1, name: 'raw external data' },
];

const KNOWN_INCOMPATIBLE = Object.values(Incompatible).reduce((all, bit) => all | bit, 0n);

/** The names of the incompatible features that are not known here, from the image's table where it has them. */
export function unknownFeatures(incompatible: bigint, names: readonly FeatureName[]): string[] {
  const unknown = incompatible & ~KNOWN_INCOMPATIBLE;
  const found: string[] = [];
  for (let bit = 0; bit < 64; bit++) {
    if ((unknown & (1n << BigInt(bit))) === 0n) continue;
    const entry = names.find((name) => name.kind === 'incompatible' && name.bit === bit);
    found.push(entry === undefined ? `incompatible bit ${bit}` : `"${entry.name}"`);
  }
  return found;
}
