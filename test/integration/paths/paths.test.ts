import { readFileSync } from 'node:fs';
import { beforeAll, describe, expect, test } from 'vitest';
import { valuesOfAll } from './help.js';
import { KINDS } from './kinds.js';
import { belong, type Row } from './matrix.js';
import { NOT_PATHS, NOT_PATHS_HERE, ROLES } from './roles.js';
import { collectRows } from './start.js';
import { parse } from './table.js';

/** Half a minute where nothing else runs. */
const LONGEST_MS = 900_000;

const TABLE = parse(readFileSync(new URL('table.md', import.meta.url), 'utf8'));

function keysOf(rows: readonly Row[]): string[] {
  return rows.map(({ role, kind }) => `${role}: ${kind}`).sort();
}

describe('paths', () => {
  let rows: Row[];

  beforeAll(async () => {
    rows = await collectRows();
  }, LONGEST_MS);

  test('every kind of path can be made here, which takes root and devices', () => {
    const made = new Set(rows.map(({ kind }) => kind));
    expect(KINDS.map(({ name }) => name).filter((name) => !made.has(name))).toEqual([]);
  });

  test.each(ROLES)('$name does what the table says', ({ name }) => {
    const own = rows.filter(({ role }) => role === name);
    const kinds = new Set(own.map(({ kind }) => kind));
    const told = TABLE.filter(({ role, kind }) => role === name && kinds.has(kind));
    const byKind = (list: readonly Row[]) =>
      Object.fromEntries(list.map(({ kind, exit, says, files }) => [kind, { exit, says, files }]));
    expect(byKind(own)).toEqual(byKind(told));
  });

  test('nothing hangs and nothing crashes', () => {
    const ended = rows.filter(({ exit }) => exit === 'hangs' || exit === 'crashes');
    expect(keysOf(ended)).toEqual([]);
  });

  test('a command that fails changes nothing that was there', () => {
    const changed = rows.filter(
      ({ exit, files }) => exit !== '0' && !/^(\S+ made[^;]*(; )?)*$/.test(files),
    );
    expect(keysOf(changed)).toEqual([]);
  });
});

describe('the table', () => {
  test('has a line for every kind of path in every place', () => {
    const all = ROLES.flatMap((role) =>
      KINDS.filter((kind) => belong(kind, role)).map((kind) => `${role.name}: ${kind.name}`),
    );
    expect(keysOf(TABLE)).toEqual(all.sort());
  });

  test('has every path that the help speaks of', async () => {
    const values = await valuesOfAll();
    const isPath = (value: string) =>
      !NOT_PATHS.some((name) => value.endsWith(` ${name}`)) && !NOT_PATHS_HERE.includes(value);
    const covered = new Set(ROLES.map(({ covers }) => covers));
    expect(
      [...new Set(values.filter(isPath))].sort(),
      'test/integration/paths/roles.ts has a role for each, or says that it is no path',
    ).toEqual([...covered].sort());
  });
});
