import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach } from 'vitest';

/** A new folder for the files of one test file, removed when it ends. Call it at the top level. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'lacuna-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  return folder;
}

/** Lets each test of one file work in a new folder, and tells it to `entered`. Call it at the top level. */
export function workInNewFolders(entered: (folder: string) => void = () => {}): void {
  const top = temporaryFolder();
  beforeEach(() => {
    const folder = mkdtempSync(join(top, 'test-'));
    process.chdir(folder);
    entered(folder);
  });
  afterAll(() => process.chdir('/'));
}
