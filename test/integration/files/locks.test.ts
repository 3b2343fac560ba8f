import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { copy, createRawFile, openDevice } from 'lacuna';
import { describe, expect, it } from 'vitest';
import { run, usePeers } from '../../support/peers.js';
import { runCli } from '../../support/run-cli.js';

const MIB = 2 ** 20;
const peers = usePeers();
let disks = 0;

async function newDisk(): Promise<string> {
  const path = join(await peers.folder(), `disk-${disks++}.raw`);
  await createRawFile(path, MIB);
  return path;
}

/** What QEMU says to somebody who wants to use a file; empty for yes. */
async function qemuRefuses(path: string, ...flags: string[]): Promise<string> {
  const args = ['-f', 'raw', ...flags, '-c', 'read 0 4k', path];
  return new Promise((resolve) => {
    execFile('qemu-io', args, (error, _stdout, stderr) => resolve(error ? stderr : ''));
  });
}

const refusal = { code: 'ERR_DEVICE_LOCKED', retryable: true, errno: 'EAGAIN' };

describe('a file that QEMU writes', () => {
  it('is refused by name of the program, for reading and for writing', async () => {
    const path = await newDisk();
    const peer = await peers.qemuNbd(['-f', 'raw', path]);
    const named = new RegExp(`qemu-nbd \\(process ${peer.pid}\\) is writing it`);
    for (const writable of [false, true]) {
      const opening = openDevice(path, { writable });
      await expect(opening).rejects.toMatchObject({ ...refusal, device: path });
      await expect(opening).rejects.toThrow(named);
    }
    await peer.stop();
    await using device = await openDevice(path, { writable: true });
    expect(device.size).toBe(MIB);
  });

  it('can be read by force-share, from everywhere', async () => {
    const path = await newDisk();
    await peers.qemuNbd(['-f', 'raw', path]);
    await using device = await openDevice(path, { forceShare: true });
    await using same = await openDevice(`driver=file,filename=${path},force-share=on`);
    expect(device.size).toBe(same.size);
    await expect(openDevice(path, { forceShare: true, writable: true })).rejects.toThrow(TypeError);
    await copy({ source: path, target: `${path}.copy`, forceShare: true, threads: 2 });
    for (const args of [
      ['map', path],
      ['info', path],
      ['compare', path, path],
      ['populate', path, '-o', `${path}.bitmaps`],
    ]) {
      expect(await runCli(args)).toMatchObject({ stderr: expect.stringContaining('-U') });
      expect(await runCli([...args, '-U'])).toMatchObject({ code: 0 });
    }
    expect((await runCli(['copy', '-U', path, `${path}.other`])).code).toBe(0);
    const serve = ['serve', path, '--socket', `${path}.sock`];
    expect(await runCli(serve)).toMatchObject({ stderr: expect.stringContaining('-U') });
    expect((await runCli([...serve, '-U', '--writable'])).code).toBe(2);
    const started = (child: ChildProcess) => {
      child.stdout?.once('data', () => child.kill('SIGINT'));
    };
    expect((await runCli([...serve, '-U'], { started })).code).toBe(0);
  });

  it('is not replaced by a copy, and not served', async () => {
    const [path, source] = [await newDisk(), await newDisk()];
    await peers.qemuNbd(['-f', 'raw', path]);
    const { ino } = statSync(path);
    await expect(copy({ source, target: path })).rejects.toMatchObject(refusal);
    await expect(createRawFile(path, 512)).rejects.toMatchObject(refusal);
    expect(statSync(path)).toMatchObject({ ino, size: MIB });
    expect((await runCli(['serve', path, '--writable'])).code).toBe(1);
  });

  it('is refused where a storage daemon writes it', async () => {
    const path = await newDisk();
    const node = ['--blockdev', `driver=file,node-name=f,filename=${path}`];
    await peers.storageDaemon([...node, '--export', 'nbd,id=e,node-name=f,writable=on']);
    await expect(openDevice(path)).rejects.toThrow(/storage.* is writing it/);
  });
});

describe('a file that we use', () => {
  it('is refused by QEMU, as long as it is written', async () => {
    const path = await newDisk();
    const device = await openDevice(path, { writable: true });
    expect(await qemuRefuses(path)).toContain('"write" lock');
    expect(await qemuRefuses(path, '-r')).toBe('');
    await device.close();
    expect(await qemuRefuses(path)).toBe('');
  });

  it('may be read by QEMU beside us, but not written', async () => {
    const path = await newDisk();
    await using _device = await openDevice(path);
    expect(await qemuRefuses(path, '-r')).toBe('');
    expect(await qemuRefuses(path)).toContain('"write" lock');
    await peers.qemuNbd(['-r', '-f', 'raw', path]);
  });

  it('is written by one alone, and read by many', async () => {
    const path = await newDisk();
    const writer = await openDevice(path, { writable: true });
    for (const writable of [false, true]) {
      await expect(openDevice(path, { writable })).rejects.toThrow(/this process is writing it/);
    }
    await using again = await openDevice(writer.description!, { writable: true });
    expect(again.size).toBe(MIB);
    await writer.close();
    await again.close();
    await using _one = await openDevice(path);
    await using _two = await openDevice(path);
    await expect(openDevice(path, { writable: true })).rejects.toThrow(/lets nobody write/);
  });

  it('as the target of a copy in many threads is refused until the copy has ended', async () => {
    const [source, target] = [await newDisk(), await newDisk()];
    {
      await using device = await openDevice(source, { writable: true });
      await device.write(0, new Uint8Array(MIB).fill(1));
    }
    await using given = await openDevice(target, { writable: true });
    await copy({ source, target: given, threads: 4 });
    expect(readFileSync(target).every((byte) => byte === 1)).toBe(true);
    expect(await qemuRefuses(target)).toContain('lock');
    await given.close();
    await copy({ source, target, threads: 4 });
    expect(await qemuRefuses(target)).toBe('');
  });

  it('is not locked where that is switched off', async () => {
    const path = await newDisk();
    const options = { writable: true };
    await using _one = await openDevice(
      { driver: 'file', filename: path, locking: 'off' },
      options,
    );
    await using _two = await openDevice({ driver: 'file', filename: path, locking: 'on' }, options);
    expect(await qemuRefuses(path, '-r')).toBe('');
  });

  it('is free again when its process was killed', async () => {
    const path = await newDisk();
    const child = await holdElsewhere(path);
    expect(await qemuRefuses(path)).toContain('lock');
    await expect(openDevice(path)).rejects.toThrow(`node (process ${child.pid})`);
    child.kill('SIGKILL');
    await once(child, 'exit');
    await using device = await openDevice(path, { writable: true });
    expect(device.capabilities.write).toBe(true);
  });
});

describe('without foreign calls', () => {
  it('`auto` does without locks, and `on` says that there are none', async () => {
    const path = await newDisk();
    await peers.qemuNbd(['-f', 'raw', path]);
    const env = { LACUNA_FFI: 'off' };
    expect((await runCli(['info', path], { env })).code).toBe(0);
    const { code, stderr } = await runCli(['info', `driver=file,filename=${path},locking=on`], {
      env,
    });
    expect([code, stderr]).toEqual([1, expect.stringContaining('no locks that QEMU knows')]);
  });
});

it('our lock holds the very bytes of a file that QEMU locks', async () => {
  const path = await newDisk();
  const image = `${path}.qcow2`;
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', image, '1M']);
  const held: string[][] = [];
  for (const writable of [true, false]) {
    const peer = await peers.qemuNbd([...(writable ? [] : ['-r']), '-f', 'qcow2', image]);
    held.push(locksOf(image));
    await peer.stop();
    await using _device = await openDevice(path, { writable });
    held.push(locksOf(path));
  }
  expect(held[1]).toEqual(held[0]);
  expect(held[3]).toEqual(held[2]);
});

function locksOf(path: string): string[] {
  const { ino } = statSync(path);
  const lines = readFileSync('/proc/locks', 'utf8').split('\n');
  const own = lines.filter((line) => line.includes(`:${ino} `));
  return own
    .map((line) => line.trim().split(/\s+/).slice(1).join(' ').replace(/:\d+ /, ' '))
    .sort();
}

async function holdElsewhere(path: string): Promise<ChildProcess> {
  const script = `
    import { openDevice } from 'lacuna';
    globalThis.held = await openDevice(process.argv[1], { writable: true });
    console.log('held');
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script, path], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(child.stdout!, 'data');
  return child;
}
