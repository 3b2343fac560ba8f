/** Our own backup of running machines, with our daemon in the place of the machine. */
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { createQcow2 } from 'lacuna';
import { Daemon } from 'lacuna/daemon';
import { Repository } from 'lacuna/repository';
import { expect, test } from 'vitest';
import { runCli } from '../../support/run-cli.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();

const SIZE = 4 << 20;
const MIB = 1 << 20;

async function write(pattern: number, offset: number): Promise<void> {
  const uri = `nbd+unix:///disk?socket=${process.cwd()}/guest.nbd`;
  await promisify(execFile)('qemu-io', [
    '-f',
    'raw',
    '-c',
    `write -P ${pattern} ${offset} 64k`,
    uri,
  ]);
}

const read = async (file: string, offset: number) => (await readFile(file))[offset];

test('backs up what a daemon serves in full, and then what has changed, while it is written', async () => {
  await createQcow2('disk.qcow2', { size: SIZE });
  await using daemon = new Daemon();
  await daemon.apply({
    blockdev: [
      { driver: 'qcow2', 'node-name': 'disk', file: { driver: 'file', filename: 'disk.qcow2' } },
    ],
    'nbd-server': { addr: { type: 'unix', path: `${process.cwd()}/guest.nbd` } },
    export: [{ type: 'nbd', id: 'guest', 'node-name': 'disk', writable: true }],
    qmp: ['unix:qmp'],
  });
  const nodes = () => daemon.graph.nodes.map(({ name }) => name);
  const before = nodes();
  const backup = async () => {
    const nbd = `nbd+unix:///?socket=${process.cwd()}/guest.nbd`;
    const args = ['backup', '--qmp', 'qmp', '--nbd', nbd, '--machine', 'web', 'repository'];
    const { code, stderr } = await runCli(args);
    expect(stderr).toBe('');
    expect(code).toBe(0);
    expect(nodes()).toEqual(before);
  };
  await write(1, 0);
  await backup();
  await write(2, MIB);
  await backup();
  const [, second] = Repository.open('repository').points('web')[0].points;
  expect(second).toMatchObject({ disks: [{ mode: 'given' }] });
  for (const [point, bytes] of [
    ['web/1', [1, 0]],
    ['web/2', [1, 2]],
  ] as const) {
    const file = `${point.slice(-1)}.raw`;
    expect(await runCli(['restore', 'repository', point, file])).toMatchObject({ code: 0 });
    expect([await read(file, 0), await read(file, MIB)]).toEqual(bytes);
  }
});
