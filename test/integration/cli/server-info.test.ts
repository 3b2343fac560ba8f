/** What `info --list` tells of servers, compared with what nbdinfo tells. */
import { writeFileSync } from 'node:fs';
import { createQcow2 } from 'lacuna';
import { expect, test } from 'vitest';
import { run, usePeers } from '../../support/peers.js';
import { runHere } from '../../support/run-here.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

const MIB = 1024 * 1024;

workInNewFolders();
const peers = usePeers();

async function lacuna(...args: string[]) {
  const result = await runHere(args);
  expect([result.code, result.stderr], args.join(' ')).toEqual([0, '']);
  return result.stdout;
}

/** Both tell the same; what only nbdinfo looks at, the content, and how it writes a size, is left out. */
async function expectSame(uri: string): Promise<void> {
  const told = await run('nbdinfo', ['--list', '--json', uri]);
  const { exports, ...theirs } = JSON.parse(told);
  const { extended: _extended, ...ours } = JSON.parse(
    await lacuna('info', '--list', '--json', uri),
  );
  const wanted = exports.map((one: Record<string, unknown>) => {
    const { 'export-size-str': _size, content: _content, uri: _uri, ...rest } = one;
    return { contexts: [], ...rest };
  });
  const found = ours.exports.map(({ uri: _uri, ...rest }: Record<string, unknown>) => rest);
  expect({ ...ours, exports: found }).toEqual({ ...theirs, exports: wanted });
}

test('info --list tells of servers and exports what nbdinfo tells', async () => {
  writeFileSync('disk.raw', Buffer.alloc(MIB, 1));
  await createQcow2('disk.qcow2', { size: MIB });
  await run('qemu-img', ['bitmap', '--add', 'disk.qcow2', 'b0']);
  const qemu = ['-f', 'qcow2', '-x', 'vda', '-D', 'the first disk', '-B', 'b0', '-A', 'disk.qcow2'];
  const servers = [
    await peers.nbdkit(['memory', '10M']),
    await peers.nbdkit([
      '-r',
      '--filter=blocksize-policy',
      'file',
      'disk.raw',
      'blocksize-minimum=4096',
    ]),
    await peers.nbdkit(['--no-sr', 'null', '5000']),
    await peers.qemuNbd(qemu),
  ];
  for (const { uri } of servers) await expectSame(uri);
});

test('info --list tells people of every export, and refuses what is no server', async () => {
  await createQcow2('disk.qcow2', { size: MIB });
  const { uri } = await peers.qemuNbd([
    '-f',
    'qcow2',
    '-x',
    'vda',
    '-D',
    'the first disk',
    'disk.qcow2',
  ]);
  const text = await lacuna('info', '--list', uri);
  expect(text).toMatch(
    /^protocol {2}newstyle-fixed, no TLS, structured replies\n\nexport {4}vda\n/,
  );
  expect(text).toMatch(/about {5}the first disk\n/);
  expect(text).toMatch(/contexts {2}base:allocation\n/);
  expect(text).toMatch(/requests {2}at least 1 B, best 4 KiB, at most 32 MiB\n/);
  expect((await runHere(['info', '--list', 'disk.qcow2'])).code).toBe(2);
  expect((await runHere(['info', '--list', '-f', 'raw', uri])).code).toBe(2);
});
