/** `lacuna demo --live`: the story on a QEMU that is there for it alone. */
import { readdirSync, readFileSync, symlinkSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { run, usePeers } from '../../support/peers.js';
import { runCli } from '../../support/run-cli.js';
import { signalWhen } from '../../support/signal-when.js';

const peers = usePeers();

async function prepared(): Promise<{ parent: string; args: string[] }> {
  const parent = join(await peers.folder(), 'demo');
  await mkdir(parent);
  return { parent, args: ['demo', '--live', '--size', '256M', '--folder', parent] };
}

/** Processes that were started with something in a folder. */
function processesIn(folder: string): string[] {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  const commands = pids.map((pid) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
    } catch {
      // It has ended.
      return '';
    }
  });
  return commands.filter((command) => command.includes(folder));
}

describe('the demo of a running machine', () => {
  test('tells its story on one screen, and leaves nothing behind', async () => {
    const { parent, args } = await prepared();
    const { code, stdout, stderr } = await runCli(args);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(/^1\. qemu-storage-daemon \d+\.\d+\.\d+ has a disk of 256 MiB, and/);
    expect(stdout).toContain('Equal, byte for byte');
    const lines = stdout.trimEnd().split('\n');
    expect(lines.length).toBeLessThan(24);
    expect(lines.filter((line) => line.length > 79)).toEqual([]);
    expect(readdirSync(parent)).toEqual([]);
    expect(processesIn(parent)).toEqual([]);
  });

  test('takes the QEMU that is there, and says what to install where there is none', async () => {
    const { parent, args } = await prepared();
    const bin = join(parent, '..', 'bin');
    await mkdir(bin);
    const missing = await runCli(args, { env: { PATH: bin } });
    expect(missing.code).toBe(1);
    expect(missing.stderr).toContain('apt install qemu-system-common');
    const system = await run('sh', ['-c', 'command -v qemu-system-x86_64']);
    symlinkSync(system.trim(), join(bin, 'qemu-system-x86_64'));
    const { code, stdout } = await runCli(args, { env: { PATH: bin } });
    expect(code).toBe(0);
    expect(stdout).toMatch(/^1\. qemu-system-x86_64 /);
    expect(readdirSync(parent)).toEqual([]);
  });

  test('ends QEMU and takes everything away at Ctrl-C', async () => {
    const { parent, args } = await prepared();
    let shown = '';
    const { code } = await runCli(args, {
      started: (child) => {
        child.stdout!.on('data', (text) => {
          shown += text;
        });
        void signalWhen(child, 'SIGINT', () => shown.includes('2. Back it up'));
      },
    });
    expect(code).toBe(130);
    expect(readdirSync(parent)).toEqual([]);
    expect(processesIn(parent)).toEqual([]);
  });
});
