import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';

/** A new folder for the files of one test file, removed when it ends. Call it at the top level. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'lacuna-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  return folder;
}
