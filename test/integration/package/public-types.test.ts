import { beforeAll, describe, expect, test } from 'vitest';
import { type PublicName, readPublicNames } from '../../support/public-types.js';

/** Every member of it is documented where `Bitmap` has it. */
const DOCUMENTED_ELSEWHERE = ['BitmapUnderTest'];

describe('what the package exports', () => {
  let names: PublicName[];

  beforeAll(() => {
    names = readPublicNames();
  });

  test('is read from every import', () => {
    const subpaths = new Set(names.map(({ subpath }) => subpath));
    expect([...subpaths]).toEqual(
      expect.arrayContaining([
        'lacuna',
        'lacuna/bitmap',
        'lacuna/nbd',
        'lacuna/qmp',
        'lacuna/qemu',
        'lacuna/errors',
      ]),
    );
    expect(names.length).toBeGreaterThan(100);
  });

  test('is documented, name by name', () => {
    const bare = names.filter(({ documented }) => !documented);
    expect(bare.map(({ subpath, name }) => `${subpath}: ${name}`)).toEqual([]);
  });

  test('is documented, member by member', () => {
    const bare = names
      .filter(({ name }) => !DOCUMENTED_ELSEWHERE.includes(name))
      .flatMap(({ name, bareMembers }) => bareMembers.map((member) => `${name}.${member}`));
    expect(bare).toEqual([]);
  });

  test('names no type of ours that cannot be imported', () => {
    const exported = new Set(names.map(({ name }) => name));
    const missing = names.flatMap(({ name, mentions }) =>
      mentions.filter((type) => !exported.has(type)).map((type) => `${type}, named by ${name}`),
    );
    expect(missing).toEqual([]);
  });
});
