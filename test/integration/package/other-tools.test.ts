/** The page for who knows other tools has every flag that these have, and names no flag that is not there. */
import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { runHere } from '../../support/run-here.js';

const PAGE = readFileSync(new URL('../../../docs/other-tools.md', import.meta.url), 'utf8');

interface Section {
  readonly title: string;
  readonly rows: readonly (readonly string[])[];
}

const SECTIONS: readonly Section[] = PAGE.split(/^## /m)
  .slice(1)
  .map((text) => {
    const [title] = text.split('\n');
    const lines = text.match(/^\| .+$/gm) ?? [];
    // A bar inside a cell is written with a backslash.
    const rows = lines.slice(1).map((line) => line.slice(2, -2).split(/(?<!\\) \| /));
    return { title, rows };
  });

const FLAG = /(?<![\w-])-{1,2}[A-Za-z][\w-]*/g;

function flagsIn(text: string): string[] {
  return [...new Set(text.match(FLAG) ?? [])];
}

function sectionsOf(start: string): Section[] {
  return SECTIONS.filter(({ title }) => title === start || title.startsWith(`${start}:`));
}

function flagsTold(...sections: Section[]): string[] {
  return sections.flatMap(({ rows }) => rows.flatMap(([left]) => flagsIn(left)));
}

/** The verbs of the installed qemu-img with the flags of each: QEMU 10 has a help for each, older ones one for all. */
function qemuVerbs(): [string, string[]][] {
  const help = execFileSync('qemu-img', ['--help'], { encoding: 'utf8' });
  const [, commands] = help.split(/^(?:Command syntax:|Recognized commands.*:)$/m);
  const lines = commands.split('\n\n').find((block) => /^ {2}\w/m.test(block))!;
  return [...lines.matchAll(/^ {2}([a-z]+) (.+)$/gm)].map(([, verb, rest]) => {
    if (!rest.startsWith('- ')) return [verb, flagsIn(rest)];
    const own = spawnSync('qemu-img', [verb, '--help'], { encoding: 'utf8' });
    const heads = own.stdout.match(/^ +-.+$/gm) ?? [];
    return [verb, flagsIn(heads.map((line) => line.replace(/ {2,}\S.*$/, '')).join('\n'))];
  });
}

function longAndShort(program: string): string[] {
  const told = ['--long-options', '--short-options'].map((list) =>
    execFileSync(program, [list], { encoding: 'utf8' }),
  );
  return flagsIn(told.join('\n'));
}

describe('the page for who knows other tools', () => {
  test('has every verb and flag of the installed qemu-img', () => {
    const verbs = qemuVerbs();
    expect(verbs.length).toBeGreaterThan(13);
    const everywhere = sectionsOf('Every verb of qemu-img');
    for (const [verb, flags] of verbs) {
      const own = sectionsOf(`qemu-img ${verb}`);
      expect(own, verb).toHaveLength(1);
      const told = flagsTold(...own, ...everywhere);
      expect(flags.length, verb).toBeGreaterThan(3);
      expect(
        flags.filter((flag) => !told.includes(flag)),
        `missing of qemu-img ${verb}`,
      ).toEqual([]);
    }
  });

  test.each(['nbdcopy', 'nbdinfo'])('has every flag of the installed %s', (program) => {
    const flags = longAndShort(program);
    const told = flagsTold(...sectionsOf(program));
    expect(flags.length).toBeGreaterThan(10);
    expect(flags.filter((flag) => !told.includes(flag))).toEqual([]);
  });

  test('leaves no cell empty', () => {
    for (const { title, rows } of SECTIONS) {
      expect(rows.length, title).toBeGreaterThan(0);
      for (const row of rows) {
        expect(row, title).toHaveLength(2);
        for (const cell of row) expect(cell.trim(), title).not.toMatch(/^-?$/);
      }
    }
  });

  test('names no flag that its command has not', async () => {
    const known = new Map<string, string[]>();
    const flagsOf = async (command: string) => {
      if (!known.has(command)) {
        const { stdout } = await runHere([...command.split(' '), '--help']);
        known.set(command, [...flagsIn(stdout), '--version']);
      }
      return known.get(command)!;
    };
    for (const { title, rows } of SECTIONS) {
      const [, command] = /`lacuna (\w+)`/.exec(title) ?? [];
      for (const [, right = ''] of rows) {
        for (const [, code] of right.matchAll(/`([^`]+)`/g)) {
          const [, said] = /^lacuna ([a-z]+(?: [a-z]+(?= |$))?)/.exec(code) ?? [];
          const isOurs = said !== undefined || /^-{1,2}[A-Za-z]/.test(code);
          if (!isOurs || /^-[S-U] ?\d?$|^-t$|^--output=/.test(code)) continue;
          const named = said ?? command;
          // What many commands have is in one or the other of these.
          const own = named
            ? await flagsOf(named)
            : [...(await flagsOf('copy')), ...(await flagsOf('create'))];
          const [ours] = code.split(' \\| ');
          const missing = flagsIn(ours).filter((flag) => !own.includes(flag));
          expect(missing, `${title}: ${code}`).toEqual([]);
        }
      }
    }
  });
});
