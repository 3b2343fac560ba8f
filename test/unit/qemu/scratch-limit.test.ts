import { expect, test } from 'vitest';
import { scratchLimit } from '#dist/qemu/session/scratch-limit.js';

test('disks share what is free for their scratch images, but for a reserve', () => {
  expect(scratchLimit('/scratch', 100 * 2 ** 20, 2)).toBe(40 * 2 ** 20);
});

test.each([0, 2 ** 20])('with %i bytes free a backup does not begin', (free) => {
  expect(() => scratchLimit('/scratch', free, 1)).toThrow(
    expect.objectContaining({ code: 'ERR_SCRATCH_FULL', device: '/scratch' }),
  );
});
