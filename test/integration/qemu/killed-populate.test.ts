/** A process that populates is killed at every step; nothing that it leaves may look like a bitmap that has everything. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { LiveMachine } from '../../support/live-machine.js';
import { usePeers } from '../../support/peers.js';

const CHILD = fileURLToPath(new URL('populate-child.mjs', import.meta.url));
const peers = usePeers('suite');

test('a populate that is killed at any step leaves whole bitmaps or none, and nothing that is not found', async () => {
  const live = await LiveMachine.start(peers, { disks: 2 });
  for (const guest of live.guests) await guest.write(0, Buffer.alloc(65536, 1));
  const populate = {
    sources: live.names.map((node) => ({ node })),
    targets: live.names.map((node) => ({ disk: { node }, name: 'b' })),
  };
  const both = live.names.map((name) => `bitmap ${name}/b`);

  /** Runs one, which is killed when QEMU has carried out the command of this index. */
  async function runChild(killedAfter = Number.POSITIVE_INFINITY): Promise<void> {
    const given = JSON.stringify({ machine: live.options, populate });
    const child = spawn(process.execPath, [CHILD, given], {
      stdio: ['ignore', 'inherit', 'inherit'],
    });
    const exited = once(child, 'exit');
    live.proxy.reset({
      after: ({ index }) => {
        if (index !== killedAfter) return;
        child.kill('SIGKILL');
        throw new Error('the child is dead');
      },
    });
    expect((await exited)[0]).toBe(killedAfter === Number.POSITIVE_INFINITY ? 0 : null);
    live.proxy.hooks = {};
  }

  async function removeBoth(): Promise<void> {
    for (const node of live.names) {
      await live.other.execute('block-dirty-bitmap-remove', { node, name: 'b' });
    }
  }

  await runChild();
  expect(await live.leftovers()).toEqual(both);
  await removeBoth();
  const commands = [...live.proxy.passed];
  const changes = commands.flatMap((name, index) => (name.startsWith('query-') ? [] : [index]));
  const merge = commands.lastIndexOf('transaction');
  expect(changes.length).toBeGreaterThan(8);
  for (const [round, index] of changes.entries()) {
    await runChild(index);
    const here = `after ${index}, ${commands[index]}`;
    const isWhole = index >= merge;
    await using other = await live.connect();
    if (round % 2 === 0) {
      const { warnings, unknown } = await other.recover({ generation: null });
      expect({ warnings, unknown }, here).toEqual({ warnings: [], unknown: [] });
      expect(await live.leftovers(), here).toEqual(isWhole ? both : []);
    } else {
      // The next one takes away what is left, too.
      const { bitmaps } = await other.populate(populate);
      expect(
        bitmaps.map(({ isNew, dirtyBytes }) => ({ isNew, dirtyBytes })),
        here,
      ).toEqual(live.names.map(() => ({ isNew: !isWhole, dirtyBytes: 65536 })));
      expect(await live.leftovers(), here).toEqual(both);
    }
    if (isWhole || round % 2 === 1) await removeBoth();
  }
  await live.stop();
});

test('what a populate has left is found by its names where its folder was lost', async () => {
  const live = await LiveMachine.start(peers);
  const node = 'vda';
  await live.other.execute('block-dirty-bitmap-add', { node, name: 'lacuna-0123abcd:0' });
  await live.other.execute('block-dirty-bitmap-add', { node, name: 'lacuna-0123abcd@vda' });
  await using machine = await live.connect();
  const { unknown } = await machine.recover({ generation: null });
  expect(unknown).toEqual(['lacuna-0123abcd']);
  const { recovered } = await machine.recover({ generation: null, unknown: true });
  expect(recovered).toEqual(['lacuna-0123abcd']);
  expect(await live.leftovers()).toEqual(['bitmap vda/lacuna-0123abcd@vda']);
  await live.stop();
});
