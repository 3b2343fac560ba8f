// Serves a raw file over NBD, for the bench: `node server.mjs PATH SOCKET plain|graph FILTERS none|backup`.
import { openDevice } from 'lacuna';
import { Graph } from 'lacuna/graph';
import { NbdServer } from 'lacuna/nbd';

const [path, socket, kind, filters, job] = process.argv.slice(2);
const file = { driver: 'file', filename: path };

/** A limit that nothing comes to: what is measured is the filter. */
const throttle = (name) => ({ driver: 'throttle', 'node-name': name, 'requests-per-second': 1e9 });

async function exported() {
  if (kind === 'plain') return openDevice(file, { writable: true });
  const graph = new Graph();
  await graph.add({ 'node-name': 'disk', ...file }, { writable: true });
  const device = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
  for (let i = 0; i < Number(filters); i++) {
    await graph.insertFilter({ filter: throttle(`filter${i}`), above: 'disk' });
  }
  if (job === 'backup') {
    const target = { driver: 'file', filename: `${path}.target` };
    const backup = graph.backup({ disks: [{ node: 'disk', target }], sync: 'none' });
    backup.register();
    while (!graph.nodes.some(({ name }) => name === 'disk.kept')) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }
  return device;
}

const server = new NbdServer({ exports: [{ name: 'disk', device: await exported() }] });
await server.listen({ type: 'unix', path: socket });
