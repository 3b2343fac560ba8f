/** Nothing is copied where nothing is ready, and no file is made where a device was meant. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { usePeers } from '../../support/peers.js';
import { type CliResult, runCli } from '../../support/run-cli.js';
import { runHere } from '../../support/run-here.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const top = temporaryFolder();
const peers = usePeers();
let folder: string;
const at = (name: string) => join(folder, name);
beforeEach(() => {
  folder = mkdtempSync(join(top, 't-'));
  writeFileSync(at('backup.raw'), 'a good copy');
});

describe('a source of 0 bytes', () => {
  const refused = (stderr: string) => [1, expect.stringContaining(stderr)];

  it('does not replace a file that holds something, unless that was allowed', async () => {
    writeFileSync(at('empty.raw'), '');
    const args = ['copy', at('empty.raw'), at('backup.raw')];
    const { code, stderr } = await runHere(args);
    expect([code, stderr]).toEqual(refused('ERR_COPY_EMPTY'));
    expect(readFileSync(at('backup.raw'), 'utf8')).toBe('a good copy');
    expect((await runHere([...args, '--allow-empty'])).code).toBe(0);
    expect(readFileSync(at('backup.raw'), 'utf8')).toBe('');
  });

  it('is not taken from an export, which may not be ready', async () => {
    const { uri } = await peers.nbdkit(['memory', '0']);
    const { code, stderr } = await runHere(['copy', uri, at('new.raw')]);
    expect([code, stderr]).toEqual(refused('has 0 bytes: check that it is ready'));
    expect(readdirSync(folder)).toEqual(['backup.raw']);
    expect((await runHere(['copy', '--allow-empty', uri, at('new.raw')])).code).toBe(0);
  });

  it('does not come out of a pipe whose other end has failed', async () => {
    const empty = (...flags: string[]): Promise<CliResult> =>
      runCli(['copy', '-', at('backup.raw'), ...flags], { started: ({ stdin }) => stdin?.end() });
    const { code, stderr } = await empty();
    expect([code, stderr]).toEqual(refused('The stream ended without a byte'));
    expect(readFileSync(at('backup.raw'), 'utf8')).toBe('a good copy');
    expect(readdirSync(folder)).toEqual(['backup.raw']);
    expect((await empty('--allow-empty')).code).toBe(0);
  });
});

describe('a target that is misspelt', () => {
  it.each([
    ['raw', []],
    ['qcow2', ['-O', 'qcow2']],
  ])('does not become a %s file in /dev', async (_format, flags) => {
    const target = '/dev/lacuna-no-such-disk';
    const { code, stderr } = await runHere(['copy', ...flags, at('backup.raw'), target]);
    expect([code, stderr]).toEqual([
      1,
      expect.stringContaining('files are not made in /dev: check the name of the device'),
    ]);
    expect(existsSync(target)).toBe(false);
  });

  it('does not become a file where a folder was meant', async () => {
    const { code, stderr } = await runHere(['copy', at('backup.raw'), `${at('folder')}/`]);
    expect([code, stderr]).toEqual([1, expect.stringContaining('names a folder')]);
    expect(readdirSync(folder)).toEqual(['backup.raw']);
  });
});
