/** SIGUSR1, by which Node opens its debugger, and which people send to a copy to see how far it is. */
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { pattern } from '../../support/fake-device.js';
import { usePeers } from '../../support/peers.js';
import { createImage } from '../../support/qemu-images.js';
import { runCli } from '../../support/run-cli.js';
import { runHere } from '../../support/run-here.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const MiB = 2 ** 20;
const folder = temporaryFolder();
const peers = usePeers();

/** Says at the end of a process whether its debugger is open. */
const TELL_AT_EXIT = `
const inspector = require('node:inspector');
process.on('exit', () => require('node:fs').writeSync(2, 'debugger: ' + inspector.url() + '\\n'));
`;

/** Has code run in the command's process before its own. */
function preload(code: string): NodeJS.ProcessEnv {
  const file = join(mkdtempSync(join(folder, 'preload-')), 'first.cjs');
  writeFileSync(file, `${TELL_AT_EXIT}${code}`);
  return { NODE_OPTIONS: `--require ${file}` };
}

test('a signal that comes before our code opens no debugger that stays', async () => {
  const env = preload(`
    process.debugPort = 0;
    process.kill(process.pid, 'SIGUSR1');
    while (inspector.url() === undefined);
  `);
  const { code, stderr } = await runCli(['--version'], { env });
  expect(code).toBe(0);
  expect(stderr).toMatch(/^Debugger listening on .*debugger: undefined\n$/s);
});

test('a debugger that opens a moment later, for a signal from before, is shut', async () => {
  writeFileSync(join(folder, 'd.raw'), pattern(MiB));
  const env = preload(`setTimeout(() => inspector.open(0), 0);`);
  const { code, stderr } = await runCli(['digest', join(folder, 'd.raw')], { env });
  expect(code).toBe(0);
  expect(stderr).toMatch(/^Debugger listening on .*debugger: undefined\n$/s);
});

test('those who debug the command itself still can', async () => {
  const env = preload('');
  env.NODE_OPTIONS += ' --inspect=127.0.0.1:0';
  const { code, stderr } = await runCli(['--version'], { env });
  expect(code).toBe(0);
  expect(stderr).toMatch(/debugger: ws:/);
});

test.each([
  [/^lacuna: Copying +\d+ % .* of 1 MiB/m, ['--threads', '0']],
  [/^lacuna: Copying +\d+ % .* of 1 MiB/m, ['--threads', '2']],
  [/^lacuna: Copying +\d+ % .* of 1 MiB/m, ['--threads', '2', '--json']],
])('a copy answers SIGUSR1 with how far it is, and goes on (%#)', async (answer, flags) => {
  const { uri } = await peers.nbdkit(['pattern', '1M']);
  // It stands still after its first piece until it has answered.
  const rate = join(folder, 'rate');
  writeFileSync(rate, '1');
  const args = ['copy', '--rate-file', rate, ...flags, uri];
  const { code, stderr } = await runCli([...args, join(folder, 'x.raw')], {
    // A signal to a process that is still being loaded has no listener of ours.
    env: preload(`require('node:fs').writeSync(2, 'loaded\\n')`),
    started(child) {
      child.stderr?.once('data', () => {
        const asking = setInterval(() => child.kill('SIGUSR1'), 50);
        // One that comes when Node is leaving already would end it.
        child.stderr?.on('data', (text: string) => {
          if (!text.includes('lacuna: Copying') || readFileSync(rate, 'utf8') === '') return;
          clearInterval(asking);
          writeFileSync(rate, '');
          child.kill('SIGHUP');
        });
        child.once('exit', () => clearInterval(asking));
      });
    },
  });
  expect(stderr).toMatch(answer);
  expect(stderr).toMatch(/debugger: undefined\n$/);
  expect(code).toBe(0);
});

test('a copy of a stream that has not begun yet answers SIGUSR1 with what it waits for', async () => {
  const { code, stderr } = await runCli(['copy', '-', join(folder, 'of-stream.raw')], {
    env: preload(`require('node:fs').writeSync(2, 'loaded\\n')`),
    started(child) {
      child.stderr?.once('data', () => {
        const asking = setInterval(() => child.kill('SIGUSR1'), 50);
        child.stderr?.on('data', (text: string) => {
          if (!text.includes('lacuna: Copying')) return;
          clearInterval(asking);
          child.stdin?.end('x');
        });
      });
    },
  });
  expect([code, stderr]).toEqual([0, expect.stringContaining('lacuna: Copying\n')]);
});

test('every command with a progress bar answers SIGUSR1 until it is done', async () => {
  await createImage(join(folder, 'base.qcow2'), MiB);
  const [disk, overlay] = [join(folder, 'd.raw'), join(folder, 'over.qcow2')];
  writeFileSync(disk, pattern(MiB));
  await createImage(overlay, MiB, [], ['-b', 'base.qcow2', '-F', 'qcow2']);
  for (const [phase, ...args] of [
    ['Planning', 'copy', disk, join(folder, 'y.raw')],
    ['Planning', 'copy', '--json', disk, join(folder, 'y.raw')],
    ['Copying', 'copy', disk, '-'],
    ['Comparing', 'compare', disk, disk],
    ['Reading', 'digest', disk],
    ['Looking', 'populate', disk, '--output', join(folder, 'b.bitmaps')],
    ['Committing', 'commit', overlay],
    ['Rebasing', 'rebase', overlay, '-b', ''],
    ['Planning', 'demo', '--size', '64M'],
  ]) {
    const answers: (string | undefined)[] = [];
    const { code } = await runHere(args, { onProgressSet: (tell) => answers.push(tell?.()) });
    expect([args, code]).toEqual([args, 0]);
    expect(answers[0]).toBe(phase);
    expect(answers.at(-1)).toBeUndefined();
  }
});
