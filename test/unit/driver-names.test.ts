import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { findDriverNames } from '../support/rules/driver-names.js';

const SOURCES = new URL('../../src/', import.meta.url).pathname;

function readSources(): Map<string, string> {
  const names = readdirSync(SOURCES, { recursive: true, encoding: 'utf8' });
  const files = names.filter((name) => name.endsWith('.ts'));
  return new Map(files.map((name) => [name, readFileSync(join(SOURCES, name), 'utf8')]));
}

test('no file but those of a driver compares its name', () => {
  expect(findDriverNames(readSources())).toEqual([]);
});

test.each([
  "if (description.driver === 'file') return;",
  "if (description?.driver !== 'qcow2') return;",
  "return 'nbd' === description.driver;",
  'switch (description.driver) {',
  "return ['file', 'null'].includes(description.driver);",
  'return FORMATS.has(leaf.driver);',
  "if (node.driverName === 'file') return;",
])('a comparison of names is found: %s', (code) => {
  expect(findDriverNames(new Map([['copy/ends/target.ts', code]]))).toHaveLength(1);
});

test('a driver may compare its own name, and everybody may say one', () => {
  const own = new Map([['block/drivers/nbd/kind.ts', "return description.driver === 'nbd';"]]);
  expect(findDriverNames(own)).toEqual([]);
  const other = new Map([['block/drivers/nbd/kind.ts', "return description.driver === 'file';"]]);
  expect(findDriverNames(other)).toHaveLength(1);
  const said = "const file = { driver: 'file', filename }; // not driver === 'file'";
  expect(findDriverNames(new Map([['chain/rebase.ts', said]]))).toEqual([]);
});
