/** Who may have the images of a machine open. */
import fs from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterEach, expect, test, vi } from 'vitest';
import { holdersOf } from '#dist/qemu/migrate/holders.js';

const FILE = fileURLToPath(import.meta.url);
const PID = 123456789;

afterEach(() => vi.restoreAllMocks());

/** Shows a process as the system does to root without the right to look at those of others: its files are listed, and no more. */
function showHidden(name: string): void {
  const { statSync } = fs;
  vi.spyOn(fs, 'readdirSync').mockImplementation(((path: string) =>
    path === '/proc' ? ['self', `${PID}`] : ['0', '3']) as never);
  vi.spyOn(fs, 'readFileSync').mockImplementation((() => `${name}\n`) as never);
  vi.spyOn(fs, 'statSync').mockImplementation(((path: string, options: object) => {
    if (!path.startsWith(`/proc/${PID}/fd/`)) return statSync(path, options);
    throw Object.assign(new Error('permission denied'), { code: 'EACCES' });
  }) as never);
}

test('a QEMU whose open files are listed, but cannot be looked at, may have an image open', () => {
  showHidden('qemu-system-x86');
  expect(holdersOf([FILE])).toEqual([PID]);
});

test('a program that is no QEMU, whose open files cannot be looked at, has no image open', () => {
  showHidden('sleep');
  expect(holdersOf([FILE])).toEqual([]);
});
