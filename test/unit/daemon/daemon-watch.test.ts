import { existsSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { askHttp } from '../../support/ask-http.js';
import { TestDaemon } from '../../support/daemon.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

/** Several pieces of a job, which keeps to a rate between them. */
const SIZE = 1 << 23;

let folder: string;
workInNewFolders((entered) => {
  folder = entered;
});

/** A daemon with a disk full of data, and the page that it serves. */
async function watched() {
  const daemon = new TestDaemon({ allow: [folder] });
  writeFileSync('disk.raw', Buffer.alloc(SIZE, 7));
  await daemon.run('blockdev-add', { driver: 'file', 'node-name': 'disk', filename: 'disk.raw' });
  const watch = await daemon.daemon.watch({ listen: '127.0.0.1:0' });
  const post = (path: string, body: object) => {
    const headers = { authorization: `Bearer ${watch.token}` };
    return askHttp(watch.address, path, { method: 'POST', headers, body });
  };
  const state = async () => (await askHttp(watch.address, '/state')).json();
  return { daemon, watch, post, state };
}

describe('a daemon that is watched', () => {
  test('begins backups from its page, which clients see, steer and dismiss as their own', async () => {
    const { daemon, post, state } = await watched();
    const target = join(folder, 'backup.raw');
    const begun = await post('/jobs', { node: 'disk', target, format: 'raw', rate: 4096 });
    expect(begun.json()).toMatchObject({ id: 'backup-1', type: 'backup', state: 'running' });
    expect(await daemon.run('query-jobs')).toMatchObject([{ id: 'backup-1', type: 'backup' }]);
    await post('/jobs/backup-1', { action: 'pause' });
    await daemon.state('backup-1', 'paused');
    await daemon.run('job-resume', { id: 'backup-1' });
    await daemon.run('job-cancel', { id: 'backup-1' });
    await daemon.state('backup-1', 'concluded');
    expect((await state()).jobs).toMatchObject([{ state: 'stopped', verbs: ['dismiss'] }]);
    await post('/jobs/backup-1', { action: 'dismiss' });
    expect(await daemon.run('query-jobs')).toEqual([]);
  });

  test('shows the jobs that clients have begun, and what clients are told beside that of jobs', async () => {
    const { daemon, post, state } = await watched();
    await daemon.run('blockdev-backup', {
      ...{ 'job-id': 'nightly', device: 'disk', sync: 'full', speed: 4096 },
      target: await emptyNode(daemon),
    });
    expect((await state()).jobs).toMatchObject([{ id: 'nightly', type: 'backup' }]);
    await post('/jobs/nightly', { action: 'stop' });
    await daemon.state('nightly', 'concluded');
    const events = (await state()).events as { text: string }[];
    expect(events.map(({ text }) => text.split(':')[0])).toContain('nightly is stopped');
    expect(events.some(({ text }) => text.includes('JOB_STATUS_CHANGE'))).toBe(false);
  });

  test.each([
    ['a name without a folder', () => 'backup.qcow2'],
    ['a file outside the folders', () => '/var/lacuna-outside.qcow2'],
    ['a way out by dots', () => `${folder}/../lacuna-outside.qcow2`],
    ['a way out by a link', () => `${folder}/out/lacuna-outside.qcow2`],
  ])('lets pages make no file where its clients may make none: %s', async (_what, target) => {
    const { post, state } = await watched();
    symlinkSync('/var', join(folder, 'out'));
    const outside = await post('/jobs', { node: 'disk', target: target() });
    expect(outside.status).toBe(400);
    expect(outside.text).toMatch(/lies in no folder that clients may use|is not a whole path/);
    expect((await state()).jobs).toEqual([]);
  });

  test('gives a backup of its page a name that no client has given, and leaves no file of one that cannot begin', async () => {
    const { daemon, post } = await watched();
    await daemon.run('blockdev-backup', {
      ...{ 'job-id': 'backup-1', device: 'disk', sync: 'full', speed: 4096 },
      target: await emptyNode(daemon),
    });
    const target = join(folder, 'b.raw');
    const begun = await post('/jobs', { node: 'disk', target, format: 'raw', rate: 4096 });
    expect(begun.json()).toMatchObject({ id: 'backup-2' });
    daemon.daemon.graph.backup = () => {
      throw new Error('no room for one more');
    };
    const lost = await post('/jobs', {
      node: 'disk',
      target: join(folder, 'c.raw'),
      format: 'raw',
    });
    expect(lost.text).toMatch(/no room for one more/);
    expect(existsSync(join(folder, 'c.raw'))).toBe(false);
    expect(existsSync(target)).toBe(true);
  });

  test('is watched no more when it has ended', async () => {
    const { daemon, watch } = await watched();
    await daemon.daemon.close();
    await expect(askHttp(watch.address, '/state')).rejects.toMatchObject({ code: 'ECONNREFUSED' });
  });
});

/** A node that a backup can go to. */
async function emptyNode(daemon: TestDaemon): Promise<string> {
  writeFileSync('target.raw', Buffer.alloc(SIZE));
  await daemon.run('blockdev-add', {
    ...{ driver: 'file', 'node-name': 'target', filename: 'target.raw' },
  });
  return 'target';
}
