import fs, { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test, vi } from 'vitest';
import { MachinePlaces } from '#dist/repository/layout/index.js';
import { Lock, locksOf, unlock } from '#dist/repository/lock/index.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const folder = temporaryFolder();
let machines = 0;
const newPlaces = () => new MachinePlaces(folder, `m${++machines}`);

/** A lock of another holder. */
function plant(places: MachinePlaces, change: object, kind = 'change'): string {
  const own = Lock.take(places, 'read', 'planting');
  const [name] = readdirSync(places.locks);
  const lock = JSON.parse(readFileSync(join(places.locks, name), 'utf8'));
  own.release();
  const path = join(places.locks, `${kind}-0123456789abcdef.json`);
  writeFileSync(path, JSON.stringify({ ...lock, kind, ...change }));
  return path;
}

/** No process: Linux has none above 4194304. */
const GONE = 2 ** 22 + 1;

describe('locks of living holders', () => {
  test.each([
    ['read', 'read', true],
    ['read', 'add', true],
    ['add', 'read', true],
    ['add', 'add', false],
    ['change', 'read', false],
    ['read', 'change', false],
    ['add', 'change', false],
    ['change', 'change', false],
  ] as const)('%s beside %s: %s', (first, second, isAllowed) => {
    const places = newPlaces();
    const held = Lock.take(places, first, 'something');
    const take = () => Lock.take(places, second, 'else').release();
    if (isAllowed) take();
    else
      expect(take).toThrow(/are locked by something of process \d+ .*: wait until it has ended$/);
    expect(locksOf(places)).toHaveLength(1);
    held.release();
    Lock.take(places, second, 'else').release();
    expect(locksOf(places)).toEqual([]);
  });
});

describe('a lock is dead', () => {
  test.each([
    ['whose process is gone', { pid: GONE }],
    ['whose process has another start, and so is another one', { started: '1' }],
    ['of an earlier start of this host', { boot: 'an earlier one' }],
  ])('%s, and the next lock that is taken removes it', (_, change) => {
    const places = newPlaces();
    plant(places, change);
    expect(locksOf(places)).toMatchObject([{ life: 'dead' }]);
    Lock.take(places, 'change', 'prune').release();
    expect(locksOf(places)).toEqual([]);
  });

  test("although it is in nobody's way, and is removed as well", () => {
    const places = newPlaces();
    plant(places, { pid: GONE }, 'read');
    Lock.take(places, 'read', 'verify').release();
    expect(locksOf(places)).toEqual([]);
  });

  test('although it cannot be removed, and keeps nobody away', () => {
    const places = newPlaces();
    const dead = plant(places, { pid: GONE });
    const refused = vi.spyOn(fs, 'rmSync').mockImplementation(() => {
      throw Object.assign(new Error('EPERM'), { code: 'EPERM', syscall: 'unlink' });
    });
    try {
      Lock.take(places, 'read', 'restore');
      expect(refused).toHaveBeenCalledWith(dead, { force: true });
    } finally {
      refused.mockRestore();
    }
  });
});

describe('a lock stays until it is unlocked', () => {
  test.each([
    ['of another host', { host: 'elsewhere' }],
    ['of another container', { namespace: 'pid:[1]', pid: GONE }],
  ])('%s', (_, change) => {
    const places = newPlaces();
    plant(places, change);
    expect(() => Lock.take(places, 'read', 'restore')).toThrow(/run "lacuna unlock" if you know/);
    expect(unlock(places)).toMatchObject({ removed: [{ life: 'unknown' }], kept: [] });
    Lock.take(places, 'change', 'prune').release();
  });

  test('that cannot be read', () => {
    const places = newPlaces();
    writeFileSync(plant(places, {}), 'spoilt');
    expect(() => Lock.take(places, 'read', 'restore')).toThrow(/cannot be read/);
    unlock(places);
    Lock.take(places, 'change', 'prune').release();
  });
});

test('unlock leaves the lock of a living process of this host', () => {
  const places = newPlaces();
  const held = Lock.take(places, 'add', 'backup');
  expect(unlock(places)).toMatchObject({ removed: [], kept: [{ life: 'alive' }] });
  held.release();
});
