import picocolors from 'picocolors';
import { expect, test } from 'vitest';
import { run } from '#dist/cli/program.js';
import type { Shell } from '#dist/cli/shell/shell.js';

/** What a command prints when it is asked for help. */
async function helpOf(command: string): Promise<string> {
  let text = '';
  const shell = {
    print: async (more: string) => {
      text += more;
    },
    note: (more: string) => expect.fail(more),
    colors: picocolors.createColors(false),
    signal: new AbortController().signal,
    exitCode: 0,
    failureCode: 1,
  } as unknown as Shell;
  expect(await run([...command.split(' '), '--help'], shell)).toBe(0);
  return text;
}

/** The commands that a help text lists. */
function commandsIn(help: string): string[] {
  const [, behind = ''] = help.split(/^Commands:$/m);
  const [list] = behind.split('\n\n');
  return [...list.matchAll(/^ {2}([a-z]+) /gm)].map((match) => match[1]);
}

const COMMANDS = commandsIn(await helpOf('')).filter((name) => name !== 'help');
const OF_BITMAPS = commandsIn(await helpOf('bitmap')).filter((name) => name !== 'help');

test('help lists the commands', () => {
  expect(COMMANDS).toEqual(expect.arrayContaining(['copy', 'serve', 'bitmap', 'demo']));
  expect(OF_BITMAPS).toEqual(expect.arrayContaining(['list', 'export']));
});

test.each([...COMMANDS, ...OF_BITMAPS.map((name) => `bitmap ${name}`)])(
  'help of %s has examples of it, and lines that fit',
  async (command) => {
    const help = await helpOf(command);
    expect(help).toContain(`Usage: lacuna ${command}`);
    const [, examples = ''] = help.split(/^Examples:$/m);
    expect(examples).toMatch(new RegExp(`^ {2}lacuna ${command}\\b`, 'm'));
    expect(help.split('\n').filter((line) => line.length > 120)).toEqual([]);
    // Sizes as people write them, and formats by name.
    expect(help).not.toMatch(/default: \d{7,}/);
    if (/--format </.test(help))
      expect(help.replace(/\s+/g, ' ')).toMatch(/raw or qcow2|raw, qcow2/);
  },
);
