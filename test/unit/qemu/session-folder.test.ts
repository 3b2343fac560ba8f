import { existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { SessionFolder } from '#dist/qemu/state/session-folder.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const base = temporaryFolder();
const PREFIX = 'lacuna-0123abcd';

test('a folder of a session that is just made is not taken for one of a dead session', async () => {
  const making = SessionFolder.create(base, PREFIX);
  expect(SessionFolder.left(base)).toEqual([{ prefix: PREFIX, folder: undefined }]);
  const folder = await making;
  folder.leave();
  const [{ folder: left }] = SessionFolder.left(base);
  left!.remove();
  expect(readdirSync(base)).toEqual([]);
});

test('a folder whose maker died before it was locked goes with the next look', () => {
  mkdirSync(join(base, PREFIX));
  expect(SessionFolder.left(base)).toEqual([]);
  expect(readdirSync(base)).toEqual([]);
});

test('a folder that is being removed is left to who removes it', () => {
  const path = join(base, PREFIX);
  mkdirSync(path);
  mkdirSync(join(path, 'something'));
  expect(SessionFolder.left(base)).toEqual([]);
  expect(existsSync(join(path, 'lock'))).toBe(false);
  rmSync(path, { recursive: true });
});
