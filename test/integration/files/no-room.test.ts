import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { temporaryFolder } from '../../support/temporary-folder.js';

const folder = temporaryFolder();
const block = JSON.stringify(import.meta.resolve('#dist/block/index.js'));

/** Runs a script in a process that lives under some limit, and returns what it printed as JSON. */
function runUnder(limit: string[], script: string): unknown {
  const path = join(folder, 'script.mjs');
  writeFileSync(path, `import { createRawFile, openDevice } from ${block};\n${script}`);
  const [program, ...args] = [...limit, process.execPath, path];
  return JSON.parse(execFileSync(program, args, { cwd: folder }).toString());
}

const FULL = `
  await createRawFile('small/disk', 4 << 20);
  const device = await openDevice('small/disk', { writable: true });
  const failures = [];
  const note = ({ code, errno, offset, length, device, retryable, message }) =>
    failures.push({ code, errno, offset, length, device, retryable, message });
  await device.write(4096, new Uint8Array(2 << 20).fill(1)).catch(note);
  await device.zero(0, 3 << 20, { unmap: false }).catch(note);
  await device.zero(0, 4 << 20);
  await device.write(0, new Uint8Array(1000).fill(1));
  await device.flush();
  await device.close();
  console.log(JSON.stringify(failures));`;

it('a device says that its file system is full, and goes on when there is room again', () => {
  // A file system of 1 MiB that only this process and its children see.
  const mount = 'mkdir -p small && mount -t tmpfs -o size=1m tmpfs small && exec "$0" "$@"';
  const failures = runUnder(['unshare', '--map-root-user', '--mount', 'sh', '-c', mount], FULL);
  const full = {
    code: 'ERR_DEVICE_IO',
    errno: 'ENOSPC',
    device: join(folder, 'small/disk'),
    retryable: false,
  };
  expect(failures).toEqual([
    {
      ...full,
      offset: 4096,
      length: 2 << 20,
      message: expect.stringMatching(
        /^Cannot write .* \(ENOSPC\): there is no space left: free some/,
      ),
    },
    expect.objectContaining(full),
  ]);
});

it('a file that is longer than the limit of the process is refused with EFBIG', () => {
  const script = `
    const error = await createRawFile('disk', 1 << 20).catch((error) => error);
    console.log(JSON.stringify(error));`;
  expect(runUnder(['prlimit', '--fsize=65536'], script)).toMatchObject({
    code: 'ERR_DEVICE_OPEN',
    errno: 'EFBIG',
  });
});
