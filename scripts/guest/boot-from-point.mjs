/** Guests that boot from a restore point while `lacuna serve` serves it. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { Guest, recordsOf, run } from './guest.mjs';

const LACUNA = new URL('../../dist/cli/main.js', import.meta.url).pathname;
/** Records that each guest adds. */
const MORE_RECORDS = 50;

/** Serves the newest point of a repository while some work goes on; the work is given the URI of its disk. */
async function served(folder, repository, flags, work) {
  const socket = join(folder, 'serve.sock');
  rmSync(socket, { force: true });
  const args = [LACUNA, 'serve', '--socket', socket, ...flags, repository, 'latest'];
  const server = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const exited = once(server, 'exit');
  try {
    // It prints the URI when it lets clients in.
    const [line] = await Promise.race([once(server.stdout, 'data'), exited]);
    if (server.exitCode !== null) throw new Error(`lacuna serve ended with ${server.exitCode}`);
    return await work(String(line).trim());
  } finally {
    server.kill('SIGINT');
    const [code] = await exited;
    if (code !== 0) console.error(`lacuna serve ended with ${code}`);
  }
}

/** Boots a guest from a disk, and lets it add records; returns how many it found. */
async function boot(folder, drive) {
  const guest = new Guest(folder, drive);
  try {
    const found = await guest.booted();
    await guest.wrote(found + MORE_RECORDS);
    return found;
  } finally {
    await guest.kill();
  }
}

function expectRecords(what, found, isRight) {
  if (!isRight) throw new Error(`${what}: ${found} records`);
  console.log(`${what}: ${found} records`);
}

/** What the point itself holds, over NBD and without any overlay. */
async function untouched(folder, repository, records) {
  const raw = join(folder, 'served.raw');
  const copy = async (uri) => run('qemu-img', 'convert', '-f', 'raw', '-O', 'raw', uri, raw);
  await served(folder, repository, [], copy);
  const found = recordsOf(raw);
  expectRecords('  the point itself has', found, found === records);
}

/**
 * Boots guests from the newest point of a repository, in each way that it can be served.
 *
 * @param records that the disk of the point has
 * @throws Error where a guest does not boot, or finds other records.
 */
export async function bootFromPoint(folder, repository, records) {
  const writable = (uri) => `format=raw,file=${uri}`;
  const snapshot = (uri) => `format=raw,snapshot=on,file=${uri}`;
  const start = async (flags, drive) =>
    await served(folder, repository, flags, (uri) => boot(folder, drive(uri)));

  let found = await start([], snapshot);
  expectRecords(
    'booted from the read-only point, with a snapshot of QEMU',
    found,
    found === records,
  );
  await untouched(folder, repository, records);

  found = await start(['--discard'], writable);
  expectRecords('booted over an overlay that is thrown away', found, found === records);
  await untouched(folder, repository, records);

  const overlays = join(folder, `overlays-${process.pid}`);
  mkdirSync(overlays);
  const kept = ['--overlay', overlays];
  found = await start(kept, writable);
  expectRecords('booted over an overlay that is kept', found, found === records);
  await untouched(folder, repository, records);
  found = await start(kept, writable);
  expectRecords('booted over it again', found, found >= records + MORE_RECORDS);
  await untouched(folder, repository, records);
  rmSync(overlays, { recursive: true });
}
