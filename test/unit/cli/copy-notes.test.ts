import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { noteNoRoom } from '#dist/cli/commands/copy/copy-notes.js';
import { LacunaError } from '#dist/errors/index.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

test('who has no room for two files is told of what needs none', () => {
  const target = join(temporaryFolder(), 'target.raw');
  const notes: string[] = [];
  const failWith = (errno: string, code: 'ERR_DEVICE_IO' | 'ERR_RESUME_FILE' = 'ERR_DEVICE_IO') =>
    noteNoRoom(target, new LacunaError(code, 'no', { errno }), {
      note: (text) => notes.push(text),
    });
  failWith('ENOSPC');
  expect(notes).toEqual([]);
  writeFileSync(target, 'old');
  failWith('EIO');
  expect(notes).toEqual([]);
  failWith('ENOSPC', 'ERR_RESUME_FILE');
  expect(notes).toEqual([]);
  failWith('ENOSPC');
  expect(notes).toEqual([expect.stringContaining('with --in-place it is written over')]);
});
