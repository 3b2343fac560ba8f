/** The script that tries backup tools: it finds what a careless one loses, and nothing of ours. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const at = (path: string) => fileURLToPath(new URL(path, import.meta.url));
const SCRIPT = at('../../../scripts/try-backup-tool.mjs');
const LACUNA = `${process.execPath} ${at('../../../dist/cli/main.js')}`;
const CARELESS = `${process.execPath} ${at('../../support/careless-backup.mjs')}`;

function tryTool(commands: Record<string, string>, ...more: string[]) {
  const args = Object.entries(commands).flatMap(([name, command]) => [`--${name}`, command]);
  return new Promise<{ code: number; lines: string[]; stderr: string }>((resolve) => {
    execFile(process.execPath, [SCRIPT, ...args, ...more], (error, stdout, stderr) => {
      resolve({ code: Number(error?.code ?? 0), lines: stdout.trimEnd().split('\n'), stderr });
    });
  });
}

test('nothing is lost by backups of ours where tools in use were seen to lose data', async () => {
  const backup = `${LACUNA} backup --qmp {qmp} --machine try {store}`;
  const restore = `${LACUNA} restore --disk {disk} -O raw {store} latest {target}`;
  const { code, lines } = await tryTool({ full: backup, increment: backup, restore });
  expect(lines.map((line) => line.replace(/\(\d+/, '(N'))).toEqual([
    'D1  writes between two commands of the tool: nothing lost (N places)',
    'D2  ranges that became zero since the last backup: nothing lost (N kinds)',
    'D3  damage in what is stored: nothing lost (N damages)',
    'D4  times of files that were changed, as by a copy: nothing lost (times in reverse)',
    'D5  a small increment over a large full backup: nothing lost (N bytes)',
    'D6  disks whose names begin alike: nothing lost (vda and vdaa)',
  ]);
  expect(code).toBe(0);
});

test('a careless tool is found out, fault by fault', async () => {
  const commands = {
    full: `${CARELESS} full {qmp} {store}`,
    increment: `${CARELESS} increment {qmp} {store}`,
    restore: `${CARELESS} restore {store} {disk} {target}`,
  };
  const { code, lines } = await tryTool(commands, '--only', 'D1,D2,D3,D4,D6');
  const lost = lines.filter((line) => line.endsWith('DATA LOST'));
  expect(lost.map((line) => line.slice(0, 2))).toEqual(['D1', 'D2', 'D3', 'D4', 'D6']);
  expect(lines).toContainEqual(
    expect.stringMatching(
      /^ +a write over old data before block-dirty-bitmap-add of the full backup$/,
    ),
  );
  expect(lines).toContain('      a range that was zeroed');
  expect(code).toBe(1);
});

test('a tool that fails is told apart from one that loses data, and so is misuse', async () => {
  const failing = { full: 'echo no >&2; exit 1', increment: 'true', restore: 'true' };
  const { code, lines } = await tryTool(failing, '--only', 'D4');
  expect(lines[0]).toMatch(/^D4 .*: not tried to the end, as the tool failed:$/);
  expect(lines[1]).toContain('exit 1: no');
  expect(code).toBe(3);
  expect((await tryTool({ full: 'true' })).stderr).toContain('say --increment');
  expect((await tryTool(failing, '--only', 'D9')).code).toBe(2);
});
