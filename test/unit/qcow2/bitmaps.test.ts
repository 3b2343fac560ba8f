import { describe, expect, it } from 'vitest';
import {
  type BitmapEntry,
  bitmapDirectoryBytes,
  bitmapTableEntries,
  checkBitmapsExtension,
  encodeBitmapDirectory,
  encodeBitmapTable,
  findExtensions,
  geometryOf,
  markInUse,
  parseBitmapDirectory,
  parseBitmapTable,
  putBitmapsBody,
  putBitmapsHead,
  whyNotStorable,
} from '#dist/qcow2/index.js';
import fc from '../../support/fast-check.js';

const geometry = geometryOf({ clusterBits: 16, incompatible: 0n, refcountOrder: 4 });
const owner = { image: 'disk.qcow2', geometry, size: 2 ** 40 };

function entryOf(change: Partial<BitmapEntry> = {}): BitmapEntry {
  const granularityBits = change.granularityBits ?? 16;
  const tableEntries = bitmapTableEntries(granularityBits, owner);
  const place = { tableOffset: 0x50000, tableEntries, granularityBits };
  return { name: 'b0', ...place, inUse: false, auto: true, ...change };
}

function parse(bytes: Uint8Array, count = 1): BitmapEntry[] {
  const extension = { count, directorySize: bytes.length, directoryOffset: 0x20000 };
  return parseBitmapDirectory(bytes, extension, owner);
}

const entries = fc.uniqueArray(
  fc
    .record({
      name: fc
        .string({ unit: 'grapheme', minLength: 1, maxLength: 40 })
        .filter((name) => Buffer.byteLength(name) > 0),
      granularityBits: fc.integer({ min: 12, max: 31 }),
      cluster: fc.integer({ min: 1, max: 2 ** 36 }),
      inUse: fc.boolean(),
      auto: fc.boolean(),
    })
    .map(({ cluster, ...rest }) => entryOf({ ...rest, tableOffset: cluster * 65536 })),
  { selector: ({ name }) => name, maxLength: 20, minLength: 1 },
);

describe('a bitmap directory', () => {
  it('is read as it was written', () => {
    fc.assert(
      fc.property(entries, (list) => {
        const bytes = encodeBitmapDirectory(list);
        expect(bytes.length).toBe(bitmapDirectoryBytes(list));
        expect(bytes.length % 8).toBe(0);
        expect(parse(bytes, list.length)).toEqual(list);
      }),
    );
  });

  it('marks only the bitmaps that are named, 4 bytes each', () => {
    fc.assert(
      fc.property(entries, fc.integer({ min: 0, max: 2 ** 20 }), (list, mask) => {
        const bytes = encodeBitmapDirectory(list);
        const marked = list.filter((_, i) => (mask >> i) & 1);
        const places = markInUse(bytes, new Set(marked.map(({ name }) => name)));
        expect(places).toHaveLength(marked.length);
        for (const at of places) expect(at % 8).toBe(4);
        const expected = list.map((each) => ({
          ...each,
          inUse: each.inUse || marked.includes(each),
        }));
        expect(parse(bytes, list.length)).toEqual(expected);
      }),
    );
  });

  const whole = () => encodeBitmapDirectory([entryOf()]);
  it.each<[string, (bytes: DataView) => void, RegExp]>([
    ['a table at no cluster', (view) => view.setUint32(4, 0x50200), /table at 328192/],
    ['a table at 0', (view) => view.setUint32(4, 0), /table at 0/],
    ['a table without entries', (view) => view.setUint32(8, 0), /table of 0 entries/],
    ['a table that is too long', (view) => view.setUint32(8, 8193), /table of 8193 entries/],
    ['a table of another length', (view) => view.setUint32(8, 33), /33 entries instead of 32/],
    ['granules of 256 bytes', (view) => view.setUint8(17, 8), /granules of 2\^8/],
    ['granules of 4 GiB', (view) => view.setUint8(17, 32), /granules of 2\^32/],
    ['no name', (view) => view.setUint16(18, 0), /name of 0 bytes/],
    ['a name behind the end', (view) => view.setUint16(18, 900), /reaches behind/],
    ['a name that is no text', (view) => view.setUint8(24, 0xff), /no text/],
    ['unknown flags', (view) => view.setUint32(12, 8), /not known here/],
    ['extra data', (view) => view.setUint32(20, 4), /not known here/],
    ['an unknown type', (view) => view.setUint8(16, 2), /not known here/],
  ])('with %s is refused', (_what, damage, message) => {
    const bytes = whole();
    damage(new DataView(bytes.buffer));
    expect(() => parse(bytes)).toThrow(message);
  });

  it('that is longer or shorter than its entries, or has a name twice, is refused', () => {
    const bytes = whole();
    expect(() => parse(bytes, 2)).toThrow(/2 are announced/);
    expect(() => parse(Buffer.concat([bytes, Buffer.alloc(8)]))).toThrow(/1 entries take 32/);
    expect(() => parse(bytes.subarray(0, 24))).toThrow(/reaches behind/);
    expect(() => parse(Buffer.concat([bytes, bytes]), 2)).toThrow(/second bitmap/);
  });

  it('may have a table of any length for what is in use: the disk may have been resized', () => {
    const entry = entryOf({ inUse: true, tableEntries: 7 });
    expect(parse(encodeBitmapDirectory([entry]))).toEqual([entry]);
  });

  it('is not even read where the header cannot be right', () => {
    const good = { count: 1, directorySize: 32, directoryOffset: 65536 };
    checkBitmapsExtension(good, owner);
    for (const [change, message] of [
      [{ count: 0 }, /without bitmaps/],
      [{ count: 65536 }, /65536 bitmaps/],
      [{ directorySize: 16 }, /directory of 16 bytes/],
      [{ directorySize: 2 ** 30 }, /directory of 1073741824 bytes/],
      [{ directoryOffset: 512 }, /directory at 512/],
      [{ directoryOffset: 0 }, /directory at 0/],
    ] as const) {
      expect(() => checkBitmapsExtension({ ...good, ...change }, owner)).toThrow(message);
    }
  });
});

describe('a bitmap table', () => {
  const place = { name: 'b0', tableOffset: 0x50000 };

  it('is read as it was written', () => {
    const cluster = fc.integer({ min: 0, max: 2 ** 36 }).map((n) => (n < 2 ? n : n * 65536));
    fc.assert(
      fc.property(fc.array(cluster), (list) => {
        const bytes = encodeBitmapTable(Float64Array.from(list));
        expect([...parseBitmapTable(bytes, place, owner)]).toEqual(list);
      }),
    );
  });

  it.each(['0x2', '0x200', '0x50001', '0x100000000000000', '0x8000000000000000'])(
    'with the entry %s is refused',
    (entry) => {
      const bytes = new Uint8Array(16);
      new DataView(bytes.buffer).setBigUint64(8, BigInt(entry));
      expect(() => parseBitmapTable(bytes, place, owner)).toThrow(/entry 1 of the table/);
    },
  );
});

describe('the bitmaps extension', () => {
  it('is found between others, up to the end mark or the name of the backing file', () => {
    const cluster = new Uint8Array(65536);
    const view = new DataView(cluster.buffer);
    view.setUint32(4, 3);
    view.setUint32(100, 112);
    expect(findExtensions(cluster)).toEqual({ end: 112, limit: 65536 });
    view.setUint32(112, 0x1234);
    view.setUint32(116, 5);
    putBitmapsHead(cluster, 128, true);
    const span = putBitmapsBody(cluster, 128, {
      count: 3,
      directorySize: 8,
      directoryOffset: 65536,
    });
    expect(span).toEqual({ from: 136, to: 160 });
    expect(findExtensions(cluster)).toEqual({ bitmaps: 128, end: 160, limit: 65536 });
    view.setUint32(12, 160);
    expect(findExtensions(cluster)).toEqual({ bitmaps: 128, limit: 160 });
    view.setUint32(116, 0xffff_ffff);
    expect(findExtensions(cluster).end).toBeUndefined();
  });
});

describe('a bitmap', () => {
  it('cannot be stored where its bits take more than 512 MiB, or its name is too long', () => {
    const big = { ...owner, size: 2 ** 45 };
    expect(whyNotStorable({ name: 'b', granularityBits: 12 }, big)).toMatch(/coarser granularity/);
    expect(whyNotStorable({ name: 'b', granularityBits: 13 }, big)).toBeUndefined();
    expect(whyNotStorable({ name: 'b'.repeat(1024), granularityBits: 16 }, big)).toMatch(/name/);
  });
});
