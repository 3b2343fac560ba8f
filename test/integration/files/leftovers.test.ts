/** What is known to be left of files of ours, and what is not taken for it. */
import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { leftoversOf, Replacement, removeLeftover, sweep } from '#dist/files/index.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const INDEX = new URL('../../../dist/files/index.js', import.meta.url).href;
const top = temporaryFolder();
let folder: string;
let name: string;
beforeEach(() => {
  folder = fs.mkdtempSync(join(top, 'test-'));
  name = join(folder, 'disk.raw');
});

/** The path of a file that a process was making when it was killed. */
function left(purpose: string, env: NodeJS.ProcessEnv = {}): string {
  const before = new Set(fs.readdirSync(folder));
  const code = `
    const { Replacement } = await import(${JSON.stringify(INDEX)});
    Replacement.create(${JSON.stringify(name)}, { purpose: ${JSON.stringify(purpose)} });
    process.kill(process.pid, 'SIGKILL');`;
  const args = ['--input-type=module', '-e', code];
  spawnSync(process.execPath, args, { env: { ...process.env, ...env } });
  return join(folder, fs.readdirSync(folder).find((entry) => !before.has(entry))!);
}

const found = () =>
  leftoversOf(name, ['side', 'target', 'resumable']).map(({ path, purpose, isInUse }) => [
    path,
    purpose,
    isInUse,
  ]);

describe('what is left of a file', () => {
  it.each(['side', 'target', 'resumable'])('is known by its purpose: %s', (purpose) => {
    const path = left(purpose);
    expect(found()).toEqual([[path, purpose, false]]);
    sweep(name);
    expect(fs.existsSync(path)).toBe(purpose !== 'side');
  });

  it('is in use while its maker lives, and not removed', () => {
    const file = Replacement.create(name);
    expect(found()).toEqual([[file.path, 'side', true]]);
    sweep(name);
    expect(removeLeftover({ path: file.path })).toBe(false);
    expect(fs.existsSync(file.path)).toBe(true);
    file.removeUnfinished();
  });

  it('is in use while anybody has it open', async () => {
    const path = left('target');
    const reader = spawn('tail', ['-f', path], { stdio: ['ignore', 'pipe', 'ignore'] });
    const ended = new Promise((resolve) => reader.on('close', resolve));
    const isOpen = () =>
      fs.readdirSync(`/proc/${reader.pid}/fd`).some((fd) => {
        try {
          return fs.readlinkSync(`/proc/${reader.pid}/fd/${fd}`) === path;
        } catch {
          return false;
        }
      });
    await expect.poll(isOpen).toBe(true);
    expect(found()).toEqual([[path, 'target', true]]);
    reader.kill();
    await ended;
    expect(found()).toEqual([[path, 'target', false]]);
  });

  it('is nothing that only looks like it, is a link, or was made for another name', () => {
    const path = left('target');
    fs.writeFileSync(`${name}.partial-0123456789abcdef01234567`, '');
    fs.writeFileSync(`${name}.partial-01234567`, '');
    fs.writeFileSync(`${name}.partial`, '');
    fs.renameSync(path, path.replace('disk.raw', 'else.raw'));
    expect(found()).toEqual([]);
    fs.symlinkSync('else', path);
    expect(found()).toEqual([]);
  });

  it('is known where its name had to be cut', () => {
    name = join(folder, 'x'.repeat(255));
    const path = left('target');
    expect(found()).toEqual([[path, 'target', false]]);
  });

  it('is known without the calls that tell of locks', () => {
    const path = left('side', { LACUNA_FFI: 'off' });
    const code = `
      const { sweep } = await import(${JSON.stringify(INDEX)});
      sweep(${JSON.stringify(name)});`;
    const env = { ...process.env, LACUNA_FFI: 'off' };
    spawnSync(process.execPath, ['--input-type=module', '-e', code], { env });
    expect(fs.existsSync(path)).toBe(false);
  });
});
