import { expect, test } from 'vitest';
import { runHere } from '../../support/run-here.js';

test.each([
  [['convert', '-O', 'qcow2', 'a', 'b'], 'lacuna copy -O FORMAT SOURCE TARGET'],
  [['dd', 'if=a', 'of=b'], 'lacuna copy SOURCE TARGET'],
  [['cmp', 'a', 'b'], 'lacuna compare A B'],
  [['info', '--image-opts', 'driver=raw'], 'driver=qcow2,file.filename=NAME'],
  [['info', '--output=json', 'a'], 'say --json'],
  [['info', '--map', 'nbd://host'], 'lacuna map SOURCE'],
  [['copy', '-T', '4', 'a', 'b'], 'say --threads'],
  [['copy', '--sparse=0', 'a', 'b'], '--detect-zeroes'],
  [['map', '-O', 'raw', 'a'], undefined],
  [['bitmap', '--add', 'a', 'b'], 'lacuna bitmap add IMAGE BITMAP'],
  [['toString'], undefined],
])('what other tools know and lacuna does not is told in its words: %j', async (argv, hint) => {
  const { code, stdout, stderr } = await runHere(argv);
  expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
  expect(stderr).toMatch(/^lacuna: unknown (command|option) /);
  if (hint === undefined) expect(stderr).not.toContain('(Here');
  else expect(stderr.split('\n')[1]).toMatch(/^\(Here: /);
  expect(stderr).toContain(hint ?? '');
});

test('a server in place of a repository is told what shows it', async () => {
  const { code, stderr } = await runHere(['list', 'nbd://localhost/disk']);
  expect({ code, stderr }).toEqual({ code: 2, stderr: expect.stringContaining('"lacuna info"') });
});

test('a word that is only nearly a command is answered with that command', async () => {
  const { stderr } = await runHere(['compair', 'a', 'b']);
  expect(stderr).toContain('(Did you mean compare?)');
});
