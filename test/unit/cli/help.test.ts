import { readFileSync } from 'node:fs';
import { Command, Help } from 'commander';
import picocolors from 'picocolors';
import { expect, test } from 'vitest';
import { COMMANDS } from '#dist/cli/commands/index.js';
import { run } from '#dist/cli/run.js';
import type { Shell } from '#dist/cli/shell/shell.js';

/** What a command line that asks for help or the version prints. */
async function printedBy(argv: readonly string[]): Promise<string> {
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
  expect(await run(argv, shell)).toBe(0);
  return text;
}

function helpOf(command: string): Promise<string> {
  return printedBy([...command.split(' '), '--help']);
}

/** The commands that a help text lists. */
function commandsIn(help: string): string[] {
  const [, behind = ''] = help.split(/^Commands:$/m);
  const [list] = behind.split('\n\n');
  return [...list.matchAll(/^ {2}([a-z]+) /gm)].map((match) => match[1]);
}

const LISTED = commandsIn(await helpOf('')).filter((name) => name !== 'help');
const OF_BITMAPS = commandsIn(await helpOf('bitmap')).filter((name) => name !== 'help');

test('help lists the commands', () => {
  expect(LISTED).toEqual(expect.arrayContaining(['copy', 'serve', 'bitmap', 'demo']));
  expect(OF_BITMAPS).toEqual(expect.arrayContaining(['list', 'export']));
});

test.each([...LISTED, ...OF_BITMAPS.map((name) => `bitmap ${name}`)])(
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

test.each(COMMANDS)('the list of commands says what a command takes: $usage', async (row) => {
  const command = new Command(row.usage.split(' ')[0]);
  (await row.load())(command, {} as Shell);
  expect(new Help().subcommandTerm(command)).toBe(row.usage);
});

test('help of a command tells the same, however it is asked for', async () => {
  expect(await printedBy(['help', 'copy'])).toBe(await helpOf('copy'));
});

test('the version is the same alone and beside a command', async () => {
  const { version } = JSON.parse(readFileSync('package.json', 'utf8'));
  for (const argv of [['--version'], ['-V'], ['--version', 'copy'], ['copy', '-V']]) {
    expect(await printedBy(argv)).toBe(`${version}\n`);
  }
});
