/** What the command says when something is wrong: what happened, to what, and what to do next, all of it true. */
import { mkdtempSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { copy } from 'lacuna';
import { beforeEach, describe, expect, test } from 'vitest';
import { openDevice } from '#dist/block/index.js';
import { pattern } from '../support/fake-device.js';
import { type CliResult, runCli } from '../support/run-cli.js';
import { temporaryFolder } from '../support/temporary-folder.js';

const MiB = 2 ** 20;
const top = temporaryFolder();
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(top, 'test-'));
});

const lacuna = (...args: string[]): Promise<CliResult> => runCli(args, { cwd: folder });

describe('a resume file', () => {
  test('of a copy to another target is refused for that, and not advised again', async () => {
    writeFileSync(join(folder, 'd.raw'), pattern(MiB));
    const abort = new AbortController();
    await using source = await openDevice(join(folder, 'd.raw'));
    const job = copy({
      source,
      target: join(folder, 'x.raw'),
      resume: join(folder, 'r'),
      rate: MiB / 2,
      threads: 0,
      signal: abort.signal,
    });
    setTimeout(() => abort.abort(), 300);
    await expect(job).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    const { code, stderr } = await lacuna('copy', '--resume', 'r', 'd.raw', 'y.raw');
    expect(code).toBe(1);
    expect(stderr).toMatch(/the target was .*x\.raw when the copy began, and is .*y\.raw now/);
    expect(stderr).not.toContain('run the same command again');
  });
});
