/** What shells offer while a command line is typed, and man pages, tried with the programs themselves. */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { runHere } from '../../support/run-here.js';
import { temporaryFolder } from '../../support/temporary-folder.js';
import { Terminal } from '../../support/terminal.js';

const folder = temporaryFolder();
const script = (shell: string) => join(folder, `lacuna.${shell}`);

beforeAll(async () => {
  writeFileSync(join(folder, 'web.resume'), '');
  for (const shell of ['bash', 'zsh', 'fish']) {
    const { code, stdout, stderr } = await runHere(['completion', shell]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    writeFileSync(script(shell), stdout);
  }
});

/** A command line as far as it is typed, and all that is offered. */
const LINES: readonly (readonly [line: string, ...offered: string[]])[] = [
  ['lacuna com', 'commit', 'compare', 'completion'],
  ['lacuna copy --out', '--output-format'],
  ['lacuna copy -O ', 'qcow2', 'raw'],
  ['lacuna copy a b --detect-zeroes u', 'unmap'],
  ['lacuna bitmap add --g', '--granularity'],
  ['lacuna bitmap m', 'merge'],
  ['lacuna help ba', 'backup'],
  ['lacuna completion ', 'bash', 'fish', 'zsh'],
];

/** Whether a whole word is offered, or a part of one behind "=". */
const words = (text: string) => text.split(/\s+/).filter(Boolean).sort();

describe('bash completes', () => {
  function offered(line: string): string[] {
    const typed = line.split(' ').map((word) => `'${word}'`);
    const code = `source ${script('bash')}; COMP_WORDS=(${typed.join(' ')}); COMP_CWORD=${typed.length - 1}; _lacuna; echo "\${COMPREPLY[@]}"`;
    return words(execFileSync('bash', ['--norc', '-c', code], { encoding: 'utf8' }));
  }

  test.each(LINES)('%s', (line, ...all) => {
    expect(offered(line)).toEqual(all);
  });

  test('a value behind "=", which is a word of its own to bash', () => {
    expect(offered('lacuna copy --output-format = q')).toEqual(['qcow2']);
  });
});

describe('fish completes', () => {
  function offered(line: string): string[] {
    const code = `source ${script('fish')}; complete -C '${line}'`;
    const options = { encoding: 'utf8', cwd: folder } as const;
    const { stdout, stderr } = spawnSync('fish', ['--no-config', '-c', code], options);
    expect(stderr).toBe('');
    return words(stdout.replace(/\t.*$/gm, ''));
  }

  test.each(LINES)('%s', (line, ...all) => {
    expect(offered(line)).toEqual(all);
  });

  test('names of files where a value is one, and nothing where it is a number', () => {
    expect(offered('lacuna copy --resume web')).toEqual(['web.resume']);
    expect(offered('lacuna copy --rate ')).toEqual([]);
  });
});

test('zsh completes commands, options and values', async () => {
  const [ready, hits] = [join(folder, 'ready'), join(folder, 'hits')];
  const terminal = new Terminal(['zsh', '-f', '-i'], { TERM: 'dumb' });
  // Each hit stands behind the line that it was offered for: zsh may still write those of the line before.
  const offered = (line: string) => {
    const all = readFileSync(hits, 'utf8').split('\n');
    const own = all.filter((hit) => hit.startsWith(`${line}|`));
    return words(own.map((hit) => hit.slice(line.length + 1)).join(' '));
  };
  try {
    writeFileSync(hits, '');
    writeFileSync(
      join(folder, 'setup'),
      `autoload -U compinit; compinit -u -D; source ${script('zsh')}
compadd() { local -a hits; builtin compadd -O hits "$@"; print -rl -- "$BUFFER|"$^hits >> ${hits}; builtin compadd "$@" }
touch ${ready}\n`,
    );
    terminal.press(`source ${join(folder, 'setup')}\n`);
    await expect.poll(() => existsSync(ready)).toBe(true);
    for (const [line, ...all] of LINES) {
      terminal.press(`${line}\t`);
      await expect.poll(() => [...new Set(offered(line))], { message: line }).toEqual(all);
      // Ctrl-U takes the line away.
      terminal.press('\x15');
    }
  } finally {
    terminal.close();
  }
});

describe('man pages', () => {
  const pages = readdirSync('dist/man');

  test('are there for the program, each command and each below it', () => {
    for (const name of ['lacuna', 'lacuna-copy', 'lacuna-bitmap', 'lacuna-bitmap-add']) {
      expect(pages).toContain(`${name}.1`);
    }
  });

  test('are what the command prints, with all that its help says', async () => {
    const { stdout } = await runHere(['help', '--man', 'copy']);
    expect(readFileSync('dist/man/lacuna-copy.1', 'utf8')).toBe(stdout);
    const shown = execFileSync('mandoc', ['-Tutf8'], { input: stdout, encoding: 'utf8' });
    // biome-ignore lint/suspicious/noControlCharactersInRegex: bold is a letter written twice
    const text = shown.replace(/.\x08/g, '').replace(/\s+/g, ' ');
    const { stdout: help } = await runHere(['copy', '--help']);
    const options = [...help.matchAll(/^ {2}(-.*?)( {2}|$)/gm)].map(([, term]) => term.trim());
    expect(options.length).toBeGreaterThan(30);
    for (const option of options) expect(text).toContain(option);
    expect(text).toContain('lacuna copy --bitmaps overlay.qcow2 flat.qcow2');
  });

  test('have nothing that mandoc warns of, but that they tell no date', () => {
    const files = pages.map((page) => join('dist/man', page));
    const { stdout } = spawnSync('mandoc', ['-Tlint', '-Wwarning', ...files], { encoding: 'utf8' });
    const odd = stdout.split('\n').filter((line) => line !== '' && !line.includes('missing date'));
    expect(odd).toEqual([]);
  });
});
