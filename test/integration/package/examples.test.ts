import { execFile } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';

const run = promisify(execFile);
const FOLDER = fileURLToPath(new URL('../../../examples/', import.meta.url));

test.each(readdirSync(FOLDER).filter((name) => name.endsWith('.mjs')))('%s runs', async (name) => {
  const { stdout } = await run(process.execPath, [join(FOLDER, name)]);
  expect(stdout).toContain('source and target are equal');
});
