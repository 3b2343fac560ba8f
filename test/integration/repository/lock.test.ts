/** Locks whose holders are processes of this host. */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Repository } from 'lacuna/repository';
import { expect, test } from 'vitest';
import { MachinePlaces } from '#dist/repository/layout/index.js';
import { Lock, locksOf } from '#dist/repository/lock/index.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const folder = temporaryFolder();

test('a lock is dead whose process has ended, although its parent has not noticed', async () => {
  // The shell becomes a program that does not wait for its child, which ends when its input does.
  const parent = spawn('sh', ['-c', 'exec 3<&0; cat <&3 & echo $!; exec sleep 600']);
  try {
    const [line] = await once(parent.stdout, 'data');
    const pid = Number(`${line}`);
    const stat = () => readFileSync(`/proc/${pid}/stat`, 'utf8').split(' ');
    const name = () => readFileSync(`/proc/${parent.pid}/comm`, 'utf8');
    await expect.poll(name, { timeout: 60_000 }).toBe('sleep\n');
    parent.stdin.end();
    await expect.poll(() => stat()[2], { timeout: 60_000 }).toBe('Z');
    Repository.open(folder, { create: true });
    const places = new MachinePlaces(folder, 'm');
    const own = Lock.take(places, 'change', 'prune');
    const [{ lock }] = locksOf(places);
    own.release();
    const left = JSON.stringify({ ...lock, pid, started: stat()[21] });
    writeFileSync(join(places.locks, 'change-0123456789abcdef.json'), left);
    expect(locksOf(places)).toMatchObject([{ life: 'dead' }]);
    Lock.take(places, 'change', 'prune').release();
    expect(locksOf(places)).toEqual([]);
  } finally {
    parent.kill('SIGKILL');
  }
});

test('a lock is not dead whose process another user may not see', () => {
  const holder = import.meta.resolve('#dist/repository/lock/holder.js');
  const { pid } = process;
  const started = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /s, '')
    .split(' ')[19];
  const script = `
    import { lifeOf, thisHolder } from '${holder}';
    console.log(lifeOf({ ...thisHolder(), pid: ${pid}, started: '${started}' }));`;
  const steps = `mount -t proc -o hidepid=2 proc /proc
    exec setpriv --reuid 65534 --regid 65534 --clear-groups '${process.execPath}' --input-type=module -e "$0"`;
  const life = execFileSync('unshare', ['--mount', 'sh', '-ec', steps, script], { cwd: '/' });
  expect(`${life}`).toBe('unknown\n');
});
