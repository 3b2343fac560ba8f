/** Who may use a file that was replaced, or made from another: nobody who could not before. */
import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { modeBeside, Replacement } from '#dist/files/index.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const NOBODY = 65534;
const INDEX = new URL('../../../dist/files/index.js', import.meta.url).href;

const top = temporaryFolder();
let folder: string;
let path: string;
beforeEach(() => {
  folder = fs.mkdtempSync(join(top, 'test-'));
  path = join(folder, 'disk.raw');
  fs.writeFileSync(path, 'old', { mode: 0o640 });
});

const run = (program: string, ...args: string[]) =>
  execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
const setfacl = (...args: string[]) => run('setfacl', ...args);
/** Owner, group and all entries, in numbers. */
const aclOf = (file: string) => run('getfacl', '-cnp', file);
const modeOf = (file: string) => fs.statSync(file).mode & 0o777;

function replace(): string[] {
  const file = Replacement.create(path);
  fs.writeSync(file.fd, 'new');
  const warnings = file.finish();
  file.close();
  expect(fs.readFileSync(path, 'utf8')).toBe('new');
  return warnings;
}

describe('a file that replaces another keeps', () => {
  it('its access control list: the group does not get what the mask shows', () => {
    setfacl('-m', 'u:nobody:rw', path);
    const before = aclOf(path);
    expect(before).toMatch(/^group::r--$/m);
    expect(replace()).toEqual([]);
    expect(aclOf(path)).toBe(before);
  });

  it('having no access control list, where the folder gives one to new files', () => {
    setfacl('-d', '-m', 'u:nobody:rwx', folder);
    expect(replace()).toEqual([]);
    expect(aclOf(path)).not.toMatch(/^user:\d/m);
    expect(modeOf(path)).toBe(0o640);
  });

  it('its owner, its group and its mode', () => {
    fs.chownSync(path, NOBODY, NOBODY);
    fs.chmodSync(path, 0o604);
    expect(replace()).toEqual([]);
    const { uid, gid } = fs.statSync(path);
    expect([uid, gid, modeOf(path)]).toEqual([NOBODY, NOBODY, 0o604]);
  });

  it('its attributes', () => {
    run('setfattr', '-n', 'user.purpose', '-v', 'database', path);
    run('setfattr', '-n', 'trusted.mark', '-v', '0x00ff', path);
    expect(replace()).toEqual([]);
    expect(run('getfattr', '-d', '-m', '-', '--absolute-names', path)).toMatch(
      /trusted\.mark=0sAP8=\s+user\.purpose="database"/,
    );
  });

  it('the rights that it has at the end: what was taken away meanwhile stays taken', () => {
    setfacl('-m', 'u:nobody:rw', path);
    const file = Replacement.create(path);
    setfacl('-b', path);
    fs.chmodSync(path, 0o600);
    expect(file.finish()).toEqual([]);
    file.close();
    expect([modeOf(path), /^user:\d/m.test(aclOf(path))]).toEqual([0o600, false]);
  });

  it('access to itself until it is whole: nobody else may open what is being made', () => {
    setfacl('-m', 'u:nobody:rw', path);
    const file = Replacement.create(path);
    expect(modeOf(file.path)).toBe(0o600);
    expect(aclOf(file.path)).not.toMatch(/^user:\d/m);
    file.removeUnfinished();
  });
});

/** What a user without rights makes of it, or a machine without the calls. */
function replacedBy(setup: string, env: NodeJS.ProcessEnv = {}): string[] {
  const code = `
    const { Replacement } = await import(${JSON.stringify(INDEX)});
    ${setup}
    const file = Replacement.create(${JSON.stringify(path)});
    console.log(JSON.stringify(file.finish()));`;
  const args = ['--input-type=module', '-e', code];
  const { stdout, stderr } = spawnSync(process.execPath, args, {
    encoding: 'utf8',
    env: { ...process.env, ...env },
  });
  expect(stderr).toBe('');
  return JSON.parse(stdout);
}

describe('what cannot be kept is decided for the narrower right', () => {
  it('where the group is another one, which gets nothing', () => {
    for (const each of [top, folder]) fs.chmodSync(each, 0o777);
    setfacl('-m', 'u:daemon:r', path);
    const warnings = replacedBy(
      `process.setgroups([]); process.setgid(${NOBODY}); process.setuid(${NOBODY});`,
    );
    expect(warnings).toEqual([
      expect.stringContaining('its owner'),
      expect.stringContaining('its group'),
    ]);
    const { uid, gid } = fs.statSync(path);
    expect([uid, gid]).toEqual([NOBODY, NOBODY]);
    expect(aclOf(path)).toMatch(/^group::---$/m);
    expect(aclOf(path)).toMatch(/^other::---$/m);
  });

  it('where access control lists cannot be read, so that the group does not get what the mask shows', () => {
    setfacl('-m', 'u:nobody:rw', path);
    expect(modeOf(path)).toBe(0o660);
    replacedBy('', { LACUNA_FFI: 'off' });
    expect(modeOf(path)).toBe(0o600);
    fs.chmodSync(path, 0o644);
    replacedBy('', { LACUNA_FFI: 'off' });
    expect(modeOf(path)).toBe(0o644);
  });
});

describe('a new file is open to nobody who may not read what it is made from', () => {
  const fresh = () => join(folder, 'copy.raw');

  it('by the mode of its source', () => {
    expect(modeBeside(fresh(), [path])).toBe(0o640);
    expect(modeBeside(fresh(), [])).toBe(0o666);
  });

  it('by the access control list of its source, whose mask the mode shows', () => {
    fs.chmodSync(path, 0o600);
    setfacl('-m', 'u:nobody:rw', path);
    expect(modeOf(path)).toBe(0o660);
    expect(modeBeside(fresh(), [path])).toBe(0o600);
  });

  it('by the entries of that list that allow less than others have', () => {
    fs.chmodSync(path, 0o644);
    setfacl('-m', 'u:nobody:-', path);
    expect(modeBeside(fresh(), [path])).toBe(0o600);
  });

  it('where its group is another one', () => {
    fs.chownSync(path, 0, NOBODY);
    expect(modeBeside(fresh(), [path])).toBe(0o600);
    fs.chmodSync(path, 0o644);
    expect(modeBeside(fresh(), [path])).toBe(0o644);
    fs.chmodSync(path, 0o604);
    expect(modeBeside(fresh(), [path])).toBe(0o600);
  });

  it('where the folder gives new files an access control list', () => {
    setfacl('-d', '-m', 'u:nobody:rwx', folder);
    expect(modeBeside(fresh(), [path])).toBe(0o600);
  });

  it('by each of the files that it is made from', () => {
    const base = join(folder, 'base.raw');
    fs.writeFileSync(base, '', { mode: 0o600 });
    fs.chmodSync(path, 0o644);
    expect(modeBeside(fresh(), [path, base])).toBe(0o600);
  });
});
