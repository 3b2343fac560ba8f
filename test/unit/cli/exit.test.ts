import { describe, expect, test } from 'vitest';
import { Exit, exitCodeOf } from '#dist/cli/shell/exit.js';
import { describeError, noteError } from '#dist/cli/shell/note-error.js';
import type { Shell } from '#dist/cli/shell/shell.js';
import { abortedError, LacunaError } from '#dist/errors/index.js';

describe('exit codes', () => {
  test.each([
    ['an operating error', new LacunaError('ERR_DEVICE_IO', 'no'), Exit.failed],
    ['an error of the system', new Error('no'), Exit.failed],
    ['a TypeError', new TypeError('no'), Exit.misuse],
    ['a RangeError', new RangeError('no'), Exit.misuse],
    ['an interruption', abortedError(), Exit.interrupted],
    ['something that is no error', 'no', Exit.failed],
  ])('that say what %s means', (_what, error, code) => {
    expect(exitCodeOf(error)).toBe(code);
  });
});

function told(error: unknown, stack: boolean): string {
  let text = '';
  const add = (more: string) => {
    text += more;
  };
  noteError(error, { note: add, noteLines: add } as unknown as Shell, { stack });
  return text;
}

describe('error messages', () => {
  test('name the program and the code', () => {
    const error = new LacunaError('ERR_DEVICE_OPEN', 'disk.raw is not there');
    expect(describeError(error)).toBe('lacuna: disk.raw is not there (ERR_DEVICE_OPEN)\n');
  });

  test('leave the cause out where the message tells all, and tell it once elsewhere', () => {
    const cause = new Error('ENOSPC: no space left');
    const ours = new LacunaError('ERR_DEVICE_IO', 'The disk is full: make room', { cause });
    expect(describeError(ours)).toBe('lacuna: The disk is full: make room (ERR_DEVICE_IO)\n');
    for (const message of ['Cannot write', `Cannot write: ${cause.message}`]) {
      const text = describeError(new Error(message, { cause }));
      expect(text).toBe('lacuna: Cannot write: ENOSPC: no space left\n');
    }
  });

  test('show stacks only when asked, and survive a cycle of causes', () => {
    const error = new Error('outer');
    error.cause = new Error('inner', { cause: error });
    expect(told(error, false)).toBe('lacuna: outer: inner\n');
    expect(told(error, true)).toMatch(/at [\s\S]*caused by Error: inner/);
  });
});
