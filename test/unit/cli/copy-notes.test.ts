import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { noteNoRoom, noteUnfinished } from '#dist/cli/commands/copy/copy-notes.js';
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

test('a target that holds a part of the copy is named, and what would let the next one go on', () => {
  const notes: string[] = [];
  const shell = { note: (text: string) => void notes.push(text) };
  const job = { unfinished: undefined, partlyWritten: 'disk.raw' };
  noteUnfinished(job, new LacunaError('ERR_DEVICE_IO', 'no'), shell);
  expect(notes).toEqual([expect.stringContaining('disk.raw was written in place')]);
  noteUnfinished(job, new LacunaError('ERR_JOB_STOPPED', 'no'), shell);
  expect(notes[2]).toContain('--resume FILE');
});

test('a device that holds a part of a new image is named, and nothing speaks of going on', () => {
  const notes: string[] = [];
  const shell = { note: (text: string) => void notes.push(text) };
  const job = { unfinished: undefined, partOfImage: '/dev/sdx' };
  noteUnfinished(job, new LacunaError('ERR_JOB_STOPPED', 'no'), shell);
  expect(notes).toEqual([
    expect.stringMatching(
      /^lacuna: \/dev\/sdx holds a part of the new image.*begin the copy again\n$/,
    ),
  ]);
});
