/** `lacuna copy` with `-` where the shell has put a file in the place of standard input or output. */
import { execFile, execFileSync } from 'node:child_process';
import {
  closeSync,
  constants,
  copyFileSync,
  existsSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeEach, describe, expect, test } from 'vitest';
import { pattern } from '../../support/fake-device.js';
import { attachLoopDevice } from '../../support/loop-device.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const MiB = 2 ** 20;
const GiB = 2 ** 30;
const MAIN = fileURLToPath(new URL('../../../dist/cli/main.js', import.meta.url));
const top = temporaryFolder();
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(top, 'test-'));
});

/** Some data in a file of 8 TiB, all of which nobody can read as a stream. */
function makeHuge(name: string, size = 8192 * GiB): void {
  const fd = openSync(join(folder, name), 'w');
  ftruncateSync(fd, size);
  for (const at of [0, size / 2, size - 65536])
    writeSync(fd, pattern(65536, at % 251), 0, 65536, at);
  closeSync(fd);
}

function makeSmall(name: string, size = 4 * MiB): Buffer {
  const bytes = Buffer.alloc(size);
  for (const at of [0, size / 2]) bytes.set(pattern(65536, at % 251), at);
  writeFileSync(join(folder, name), bytes);
  return bytes;
}

/** Runs a script in which `lacuna` is the built command; options of Node before it. */
function shell(
  script: string,
  node = '',
): Promise<{ code: number; stdout: string; stderr: string }> {
  const lacuna = `lacuna() { '${process.execPath}' ${node} '${MAIN}' "$@"; }`;
  return new Promise((resolve) => {
    const env = { ...process.env, LC_ALL: 'C' };
    const args = ['-c', `set -o pipefail; ${lacuna}; cd '${folder}'; ${script}`];
    execFile('bash', args, { env }, (error, stdout, stderr) =>
      resolve({ code: Number(error?.code ?? 0), stdout, stderr }),
    );
  });
}

const bytesOf = (name: string) => readFileSync(join(folder, name));
const done = { code: 0, stderr: '' };

describe('standard input that is a file', () => {
  test('is not read where it holds nothing, and goes into a file, a server of one, or an image', async () => {
    makeHuge('huge.raw');
    expect(
      await shell('lacuna copy - x.raw < huge.raw && lacuna compare huge.raw x.raw'),
    ).toMatchObject(done);
    expect(statSync(join(folder, 'x.raw')).blocks * 512).toBeLessThan(MiB);
    expect(await shell('lacuna copy --json - x.qcow2 < huge.raw')).toMatchObject(done);
    expect(await shell('lacuna compare huge.raw x.qcow2')).toMatchObject(done);
  });

  test('is copied from where it has been read to, and left behind its end', async () => {
    const bytes = makeSmall('d.raw');
    for (const skipped of [1, 512, 100_000]) {
      const script = `{ head -c ${skipped} > head; lacuna copy - x.raw; cat > rest; } < d.raw`;
      expect(await shell(script)).toMatchObject(done);
      expect(bytesOf('x.raw').equals(bytes.subarray(bytesOf('head').length))).toBe(true);
      expect(bytesOf('rest').length).toBe(0);
    }
  });

  test('may have lost its name, or be one that only the shell may open', async () => {
    const bytes = makeSmall('d.raw');
    expect(await shell('exec 3< d.raw; rm d.raw; lacuna copy - x.raw <&3')).toMatchObject(done);
    expect(bytesOf('x.raw').equals(bytes)).toBe(true);
    if (process.getuid?.() !== 0) return;
    makeSmall('secret.raw');
    const script = `chmod 600 secret.raw; chmod 755 . ..; mkdir -m 777 open;
      setpriv --reuid 65534 --clear-groups '${process.execPath}' '${MAIN}' copy - open/y.raw < secret.raw`;
    expect(await shell(script)).toMatchObject(done);
    expect(bytesOf('open/y.raw').equals(bytes)).toBe(true);
  });

  test('that the kernel makes up is read to its end, whatever its size says', async () => {
    expect(await shell('lacuna copy - x < /proc/version')).toMatchObject(done);
    expect(bytesOf('x').equals(readFileSync('/proc/version'))).toBe(true);
  });

  test('may be a block device', async ({ onTestFinished }) => {
    const device = attachLoopDevice(4 * MiB, 512);
    if (device === undefined) return;
    onTestFinished(() => device.detach());
    const bytes = makeSmall('d.raw');
    expect(await shell(`lacuna copy - ${device.path} < d.raw`)).toMatchObject(done);
    expect(await shell(`lacuna copy - x.raw < ${device.path}`)).toMatchObject(done);
    expect(bytesOf('x.raw').equals(bytes)).toBe(true);
    expect(
      await shell(`lacuna copy d.raw - > ${device.path}; lacuna compare d.raw ${device.path}`),
    ).toMatchObject(done);
  });

  test('is read as a stream where a block device is read from the middle of a sector', async ({
    onTestFinished,
  }) => {
    const device = attachLoopDevice(4 * MiB, 512);
    if (device === undefined) return;
    onTestFinished(() => device.detach());
    const bytes = makeSmall('d.raw');
    const script = `lacuna copy - ${device.path} < d.raw; { head -c 7; lacuna copy - x.raw; } < ${device.path}`;
    expect(await shell(script)).toMatchObject(done);
    expect(bytesOf('x.raw').equals(bytes.subarray(7))).toBe(true);
  });

  test('and turns out to be a folder is an error, and not an empty disk', async () => {
    const { code, stderr } = await shell('lacuna copy - x.raw < .');
    expect([code, stderr]).toEqual([
      1,
      'lacuna: Cannot read standard input: it is a folder: name a file (ERR_DEVICE_IO)\n',
    ]);
    expect(existsSync(join(folder, 'x.raw'))).toBe(false);
  });

  test('cannot be the target as well', async () => {
    const bytes = makeSmall('d.raw');
    const { code, stderr } = await shell('lacuna copy - d.raw < d.raw');
    expect([code, stderr]).toEqual([1, expect.stringContaining('ERR_COPY_MISMATCH')]);
    expect(bytesOf('d.raw').equals(bytes)).toBe(true);
  });
});

describe('standard output that is a file', () => {
  test('is not written where it is in use, nor is a block device, however short the disk is', async ({
    onTestFinished,
  }) => {
    const device = attachLoopDevice(4 * MiB, 512);
    if (device === undefined) return;
    onTestFinished(() => device.detach());
    const fd = openSync(device.path, constants.O_RDWR | constants.O_EXCL);
    onTestFinished(() => closeSync(fd));
    for (const size of [512, 100_001, 4 * MiB]) {
      writeFileSync(join(folder, 'd.raw'), pattern(size));
      const { code, stderr } = await shell(`lacuna copy d.raw - > ${device.path}`);
      expect([code, stderr]).toEqual([1, expect.stringContaining('ERR_DEVICE_LOCKED')]);
    }
    expect(readFileSync(device.file).equals(Buffer.alloc(4 * MiB))).toBe(true);
  });

  test('is written as a stream where a block device is written from the middle of a sector', async ({
    onTestFinished,
  }) => {
    const device = attachLoopDevice(8 * MiB, 512);
    if (device === undefined) return;
    onTestFinished(() => device.detach());
    const bytes = makeSmall('d.raw');
    const script = `{ echo before; lacuna copy d.raw -; lacuna map d.raw; } > ${device.path}; lacuna map d.raw`;
    const { stdout, ...result } = await shell(script);
    expect(result).toEqual(done);
    const want = Buffer.alloc(8 * MiB);
    want.write('before\n');
    want.set(bytes, 7);
    want.write(stdout, 7 + bytes.length);
    expect(readFileSync(device.path).equals(want)).toBe(true);
  });

  test('gets no zeroes written', async () => {
    makeHuge('huge.raw');
    expect(
      await shell('lacuna copy huge.raw - > x.raw && lacuna compare huge.raw x.raw'),
    ).toMatchObject(done);
    expect(statSync(join(folder, 'x.raw')).blocks * 512).toBeLessThan(MiB);
  });

  test('is written from where others have written to, and others go on behind it', async () => {
    const bytes = makeSmall('d.raw');
    const script = '{ echo before; lacuna copy d.raw -; echo after; lacuna copy d.raw -; } > x';
    expect(await shell(script)).toMatchObject(done);
    const want = [Buffer.from('before\n'), bytes, Buffer.from('after\n'), bytes];
    expect(bytesOf('x').equals(Buffer.concat(want))).toBe(true);
  });

  test('keeps what it has behind the disk, and loses what it has in its place', async () => {
    const bytes = makeSmall('d.raw');
    writeFileSync(join(folder, 'x'), Buffer.alloc(6 * MiB, 'x'));
    expect(await shell('{ head -c 1000; lacuna copy d.raw - >&0; } <> x')).toMatchObject({
      code: 0,
    });
    const want = Buffer.alloc(6 * MiB, 'x');
    want.set(bytes, 1000);
    expect(bytesOf('x').equals(want)).toBe(true);
  });

  test('is appended to where the shell says so', async () => {
    const bytes = makeSmall('d.raw');
    writeFileSync(join(folder, 'x'), 'before');
    expect(await shell('lacuna copy d.raw - >> x')).toMatchObject(done);
    expect(bytesOf('x').equals(Buffer.concat([Buffer.from('before'), bytes]))).toBe(true);
  });

  test('must not be the source, nor a backing file of it', async () => {
    const bytes = makeSmall('d.raw');
    copyFileSync(join(folder, 'd.raw'), join(folder, 'keep.raw'));
    execFileSync('qemu-img', [
      'create',
      '-q',
      '-f',
      'qcow2',
      '-b',
      'd.raw',
      '-F',
      'raw',
      join(folder, 'over.qcow2'),
    ]);
    for (const source of ['d.raw', 'over.qcow2']) {
      for (const redirection of ['1<>', '>>']) {
        const { code, stderr } = await shell(`lacuna copy ${source} - ${redirection} d.raw`);
        expect([code, stderr]).toEqual([
          1,
          expect.stringMatching(/d.raw, which is read: name another/),
        ]);
        expect(bytesOf('d.raw').equals(bytes)).toBe(true);
      }
    }
  });

  test('does not look whole when the copy fails', async () => {
    makeSmall('d.raw');
    // The second half of the source cannot be read.
    const script = `nbdkit --exit-with-parent -U - --filter=error pattern 64M error-pread-rate=100% --run \
      '"'${process.execPath}'" "'${MAIN}'" copy "$uri" - > x'; echo "code $?"`;
    const { stdout } = await shell(script);
    expect(stdout).toBe('code 1\n');
    expect(bytesOf('x').length).toBe(0);
  });
});
