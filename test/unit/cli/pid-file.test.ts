import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { PidFile } from '#dist/cli/commands/daemon/pid-file.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();

test('a pidfile that has the id of this very process is one that was left behind', () => {
  // In a container the ids are the same after every start.
  writeFileSync('pid', `${process.pid}\n`);
  const file = PidFile.write('pid');
  expect(readFileSync('pid', 'utf8')).toBe(`${process.pid}\n`);
  file.remove();
  expect(existsSync('pid')).toBe(false);
});
