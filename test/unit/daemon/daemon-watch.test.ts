import { writeFileSync } from 'node:fs';
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

  test('lets pages make no file where its clients may make none', async () => {
    const { post } = await watched();
    const outside = await post('/jobs', { node: 'disk', target: '/var/lacuna-outside.raw' });
    expect(outside.status).toBe(400);
    expect(outside.text).toMatch(/lies in no folder that clients may use/);
    expect((await post('/jobs', { node: 'disk', target: 'backup.raw' })).status).toBe(400);
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
