import { LacunaError } from 'lacuna/errors';
import { describe, expect, test } from 'vitest';
import {
  compressedEntry,
  encodeHeader,
  encodeSnapshots,
  geometryOf,
  type Header,
  isCompressed,
  KNOWN_FEATURES,
  parseHeader,
  parseSnapshots,
  readL2Entry,
  readSubclusters,
  writeCompressedEntry,
  writeL2Entry,
  writeSubclusters,
} from '#dist/qcow2/index.js';
import { viewOf } from '#dist/util/index.js';

const HEADER: Header = {
  version: 3,
  clusterBits: 16,
  size: 10 * 2 ** 30,
  l1Size: 20,
  l1Offset: 0x30000,
  refcountTableOffset: 0x10000,
  refcountTableClusters: 1,
  snapshotCount: 0,
  snapshotsOffset: 0,
  incompatible: 1n << 3n,
  compatible: 1n,
  autoclear: 1n,
  refcountOrder: 4,
  compression: 'zstd',
  additional: new Uint8Array(7),
  extensions: {
    backingFormat: 'raw',
    dataFile: 'data.raw',
    featureNames: KNOWN_FEATURES,
    bitmaps: { count: 1, directorySize: 32, directoryOffset: 0x50000 },
    unknown: [{ type: 0x12345678, data: new Uint8Array([1, 2, 3]) }],
  },
  backingFile: 'base.raw',
};

/** The error code that a header is refused with, after some of its bytes were changed. */
function refusal(header: Header, change: (view: DataView) => void): string | undefined {
  const bytes = new Uint8Array(2 ** header.clusterBits);
  bytes.set(encodeHeader(header, 'x.qcow2'));
  change(viewOf(bytes));
  try {
    parseHeader(bytes, 'x.qcow2');
  } catch (error) {
    return (error as LacunaError).code;
  }
  return undefined;
}

describe('a header', () => {
  test('is what it was after encoding and parsing, with what it does not know', () => {
    expect(parseHeader(encodeHeader(HEADER, 'x'), 'x')).toEqual(HEADER);
  });

  test('of version 2 has no features', () => {
    const features = { incompatible: 0n, compatible: 0n, autoclear: 0n };
    const old = { ...HEADER, ...features, version: 2, compression: 'deflate' } as const;
    const parsed = parseHeader(encodeHeader(old, 'x'), 'x');
    expect(parsed).toEqual({ ...old, additional: new Uint8Array(0) });
  });

  test('is refused where its extensions and names do not fit a cluster', () => {
    const small = { ...HEADER, clusterBits: 9, backingFile: 'x'.repeat(200) };
    expect(() => encodeHeader(small, 'x')).toThrow(LacunaError);
  });

  test.each<[string, (view: DataView) => void, string]>([
    ['no magic', (view) => view.setUint32(0, 0), 'ERR_QCOW2_CORRUPT'],
    ['version 4', (view) => view.setUint32(4, 4), 'ERR_QCOW2_UNSUPPORTED'],
    ['clusters of 256 bytes', (view) => view.setUint32(20, 8), 'ERR_QCOW2_CORRUPT'],
    ['clusters of 4 MiB', (view) => view.setUint32(20, 22), 'ERR_QCOW2_CORRUPT'],
    ['a size of 2^63', (view) => view.setUint32(24, 0x8000_0000), 'ERR_QCOW2_UNSUPPORTED'],
    ['AES', (view) => view.setUint32(32, 1), 'ERR_QCOW2_UNSUPPORTED'],
    ['LUKS', (view) => view.setUint32(32, 2), 'ERR_QCOW2_UNSUPPORTED'],
    ['encryption by method 3', (view) => view.setUint32(32, 3), 'ERR_QCOW2_CORRUPT'],
    ['too short an L1 table', (view) => view.setUint32(36, 19), 'ERR_QCOW2_CORRUPT'],
    ['too long an L1 table', (view) => view.setUint32(36, 2 ** 22 + 1), 'ERR_QCOW2_CORRUPT'],
    ['an L1 table off its cluster', (view) => view.setUint32(44, 512), 'ERR_QCOW2_CORRUPT'],
    ['an L1 table in the header', (view) => view.setUint32(44, 0), 'ERR_QCOW2_CORRUPT'],
    ['an L1 table beyond 2^53', (view) => view.setUint32(40, 2 ** 31), 'ERR_QCOW2_CORRUPT'],
    ['a refcount table of 16 MiB', (view) => view.setUint32(56, 256), 'ERR_QCOW2_CORRUPT'],
    ['65,537 snapshots', (view) => view.setUint32(60, 65_537), 'ERR_QCOW2_CORRUPT'],
    ['an unknown feature', (view) => view.setUint32(76, 0x28), 'ERR_QCOW2_UNSUPPORTED'],
    ['zstd without its bit', (view) => view.setUint32(76, 0), 'ERR_QCOW2_CORRUPT'],
    ['an unknown compression', (view) => view.setUint8(104, 2), 'ERR_QCOW2_UNSUPPORTED'],
    ['refcounts of 128 bits', (view) => view.setUint32(96, 7), 'ERR_QCOW2_CORRUPT'],
    ['a short header', (view) => view.setUint32(100, 96), 'ERR_QCOW2_CORRUPT'],
    ['a header beyond the cluster', (view) => view.setUint32(100, 65_544), 'ERR_QCOW2_CORRUPT'],
    ['a long backing name', (view) => view.setUint32(16, 1024), 'ERR_QCOW2_CORRUPT'],
    ['a backing name far away', (view) => view.setUint32(12, 65_535), 'ERR_QCOW2_CORRUPT'],
    ['a long extension', (view) => view.setUint32(116, 65_536), 'ERR_QCOW2_CORRUPT'],
  ])('with %s is refused', (_what, change, code) => {
    expect(refusal(HEADER, change)).toBe(code);
  });

  test('names an unknown feature as the image names it', () => {
    const featureNames = [{ kind: 'incompatible', bit: 40, name: 'time travel' }] as const;
    const extensions = { ...HEADER.extensions, featureNames };
    const bytes = encodeHeader({ ...HEADER, extensions, incompatible: (1n << 40n) | 8n }, 'x');
    expect(() => parseHeader(bytes, 'x')).toThrow(/"time travel"/);
  });
});

describe('an entry', () => {
  test.each([9, 16, 21])('of a compressed cluster of 2^%i bytes keeps its place', (clusterBits) => {
    const geometry = geometryOf({ clusterBits, incompatible: 0n, refcountOrder: 4 });
    for (const offset of [0x50001, 0x501ff, 2 ** 40 + 511]) {
      const view = new DataView(new ArrayBuffer(8));
      writeCompressedEntry(view, 0, { offset, length: 300 }, geometry);
      const high = view.getUint32(0);
      const entry = compressedEntry(high, view.getUint32(4), geometry);
      expect(isCompressed(high)).toBe(true);
      expect(entry.offset).toBe(offset);
      expect(entry.length).toBeGreaterThanOrEqual(300);
      expect((entry.offset + entry.length) % 512).toBe(0);
    }
  });

  test('of a cluster keeps its flags, and its subclusters', () => {
    const view = new DataView(new ArrayBuffer(16));
    const entry = { offset: 2 ** 50 + 2 ** 16, copied: true, zero: true };
    writeL2Entry(view, 0, entry);
    expect(readL2Entry(view, 0)).toEqual(entry);
    const subclusters = { zero: 0x8000_0001, allocated: 0x7000_0000 };
    writeSubclusters(view, 0, subclusters);
    expect(readSubclusters(view, 0)).toEqual(subclusters);
  });
});

describe('a snapshot table', () => {
  const snapshots = [0, 1, 2].map((i) => ({
    id: String(i),
    name: `before ${'x'.repeat(i)}`,
    l1Offset: 65_536 * (i + 1),
    l1Size: i,
    size: 2 ** 40 + i,
    seconds: 1_700_000_000,
    nanoseconds: 5,
    clock: 2n ** 63n,
    stateSize: i * 2 ** 33,
    extra: new Uint8Array(8).fill(i),
  }));
  const geometry = geometryOf(HEADER);
  const header = { snapshotCount: 3, snapshotsOffset: 0x70000, size: 1 };
  const options = { header, geometry, image: 'x' };

  test('is what it was after encoding and parsing', () => {
    const bytes = encodeSnapshots(snapshots);
    expect(parseSnapshots(bytes, options)).toEqual({ snapshots, length: bytes.length });
  });

  test('that goes on behind the bytes at hand says so', () => {
    expect(parseSnapshots(encodeSnapshots(snapshots).subarray(0, 200), options)).toBeUndefined();
  });
});
