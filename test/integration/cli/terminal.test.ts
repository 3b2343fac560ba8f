/** What people see on a terminal while a command runs: the bar, and messages in whole lines above it. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { pattern } from '../../support/fake-device.js';
import { usePeers } from '../../support/peers.js';
import { temporaryFolder } from '../../support/temporary-folder.js';
import { Terminal } from '../../support/terminal.js';

const MAIN = fileURLToPath(new URL('../../../dist/cli/main.js', import.meta.url));
const [CTRL_C, CTRL_Z] = ['\x03', '\x1a'];
const top = temporaryFolder();
const peers = usePeers();
const open: Terminal[] = [];
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(top, 'test-'));
});
afterEach(() => {
  for (const terminal of open.splice(0)) terminal.close();
});

function opened(terminal: Terminal): Terminal {
  open.push(terminal);
  return terminal;
}

const lacuna = (...args: string[]) => opened(new Terminal([process.execPath, MAIN, ...args]));

/** A shell with jobs, in which $COMMAND is a command line of ours. */
function shell(...args: string[]): Terminal {
  const env = { COMMAND: [process.execPath, MAIN, ...args].join(' '), PS1: 'ready> ' };
  return opened(new Terminal(['bash', '--norc', '--noprofile', '--noediting', '-i'], env));
}

/** The arguments of a copy that takes minutes. */
async function slowCopy(): Promise<string[]> {
  const { uri } = await peers.nbdkit(['pattern', '64M']);
  return ['copy', '--rate', '256K', '--threads', '0', uri, join(folder, 'x.raw')];
}

const BAR = /Copying \[█*░+\] +\d+ % .* of /;

/** A whole message, and nothing of a bar. */
const MESSAGES = /^(\^C|lacuna: [^█░]*|Copied [^█░]*|It took [^█░]*|)$/;

describe('a bar', () => {
  test('goes away for a message of Ctrl-C, and leaves nothing of itself', async () => {
    const terminal = lacuna(...(await slowCopy()));
    await terminal.shows(BAR);
    terminal.press(CTRL_C);
    expect(await terminal.ended()).toBe(130);
    const lines = terminal.lines();
    expect(lines.join('\n')).toMatch(/finishing what is in flight.*Ctrl-C again stops at once/s);
    for (const line of lines) expect(line).toMatch(MESSAGES);
  });

  test('leaves nothing behind when a second Ctrl-C ends the command at once', async () => {
    const { uri } = await peers.nbdkit(['--filter=delay', 'pattern', '64M', 'rdelay=3600']);
    const terminal = lacuna('copy', '--threads', '0', uri, join(folder, 'x.raw'));
    await terminal.shows(/Copying/);
    terminal.press(CTRL_C);
    await terminal.shows(/again stops at once/);
    terminal.press(CTRL_C);
    expect(await terminal.ended()).toBe(130);
    for (const line of terminal.lines()) expect(line).toMatch(MESSAGES);
  });

  test('comes back after Ctrl-Z and fg, and messages stay whole', async () => {
    const terminal = shell(...(await slowCopy()));
    terminal.press('$COMMAND\n');
    await terminal.shows(BAR);
    terminal.press(CTRL_Z);
    await terminal.shows(/Stopped/);
    terminal.press('fg\n');
    await terminal.shows(/Stopped[\s\S]*Copying \[/);
    terminal.press(CTRL_C);
    await terminal.shows(/ERR_JOB_STOPPED\)\n/);
    terminal.press('echo "code $?"\n');
    // What is typed before the prompt is there stands before it.
    await terminal.shows(/^(ready> )?code 130$/m);
    const lines = terminal.lines();
    const after = lines.slice(lines.findIndex((line) => line.includes('Stopped')) + 2);
    const finishing = after.findIndex((line) => line.startsWith('lacuna: finishing'));
    expect(finishing).toBeGreaterThan(-1);
    for (const line of after.slice(finishing)) expect(line).not.toMatch(/█|░|Copying/);
    // A process that is killed could not bring the cursor back.
    expect(terminal.bytes).not.toContain('\x1b[?25l');
  });

  test('is not drawn over the prompt by a command in the background', async () => {
    // No read beyond the beginning is answered before this is gone.
    const gate = join(folder, 'gate');
    writeFileSync(gate, '');
    const wait = `while [ -e ${gate} ] && [ $4 -ge 1048576 ]; do sleep 0.1; done`;
    const { uri } = await peers.nbdkit([
      ...['eval', 'get_size=echo 64M', `pread=${wait}; head -c $3 /dev/zero`],
    ]);
    const terminal = shell('copy', '--threads', '0', uri, join(folder, 'x.raw'));
    terminal.press('$COMMAND\n');
    await terminal.shows(BAR);
    terminal.press(CTRL_Z);
    await terminal.shows(/Stopped/);
    const before = terminal.bytes.length;
    terminal.press('bg; kill -USR1 %1\n');
    await terminal.shows(/lacuna: Copying +\d+ %/);
    rmSync(gate);
    terminal.press('wait\n');
    await terminal.shows(/Copied /);
    expect(terminal.bytes.slice(before)).not.toMatch(/█|░/);
  });

  test('stays below the answers to SIGUSR1', async () => {
    const terminal = lacuna(...(await slowCopy()));
    await terminal.shows(BAR);
    process.kill(terminal.pid, 'SIGUSR1');
    await terminal.shows(/^lacuna: Copying +\d+ % .* of 64 MiB.*\nCopying \[/m);
    terminal.press(CTRL_C);
    expect(await terminal.ended()).toBe(130);
    for (const line of terminal.lines()) expect(line).toMatch(MESSAGES);
  });

  test('and the documents of --json do not mix where both go to the terminal', async () => {
    const slow = ['-t', '8', '--filter=delay', 'pattern', '4M', 'rdelay=100ms'];
    const { uri } = await peers.nbdkit(slow);
    const terminal = lacuna('copy', '--json', '--threads', '0', uri, join(folder, 'x.raw'));
    expect(await terminal.ended()).toBe(0);
    const lines = terminal.lines().filter((line) => line !== '');
    expect(lines.map((line) => (line.startsWith('{') ? 'document' : line))).toEqual(
      lines.map(() => 'document'),
    );
  });

  test('is drawn by every command that reads a disk, and is gone at its end', async () => {
    writeFileSync(join(folder, 'd.raw'), pattern(2 ** 20));
    const [disk, other] = [join(folder, 'd.raw'), join(folder, 'x.raw')];
    for (const [phase, ...args] of [
      ['Planning', 'copy', disk, other],
      ['Comparing', 'compare', disk, other],
      ['Reading', 'digest', disk],
      ['Looking', 'populate', disk, '--output', join(folder, 'b.bitmaps')],
    ]) {
      const terminal = lacuna(...args);
      expect(await terminal.ended()).toBe(0);
      expect(terminal.bytes).toContain(`\r\x1b[K${phase}`);
      for (const line of terminal.lines()) expect(line).not.toMatch(/█|░/);
    }
  });
});
