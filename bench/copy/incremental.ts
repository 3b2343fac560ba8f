/** A disk of which next to nothing has changed, by its dirty bitmap. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Workload } from '../support/bench.js';
import { exec } from '../support/bench.js';
import { type RunningServer, startServer } from '../support/server.js';
import { GiB, KiB, scatter, TiB } from './disks.js';
import { lacuna, makesFile } from './tools.js';

/** The one that Debian's bindings are for. */
const PYTHON = '/usr/bin/python3';

const BITMAP = 'changes';

/** The same once more: a job cannot use the one that is exported. */
const BITMAP_OF_JOB = 'changes-of-job';
const BLOCK = 64 * KiB;

/** What people write themselves today: libnbd's Python binding, one range after another. */
const COPY_WITH_LIBNBD = `
import nbd, sys, os
uri, target, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
context = "qemu:dirty-bitmap:${BITMAP}"
h = nbd.NBD()
h.add_meta_context(context)
h.connect_uri(uri)
ranges = []
offset = 0
while offset < size:
    lengths = []
    def extents(name, at, entries, error):
        position = at
        for length, flags in zip(entries[::2], entries[1::2]):
            if flags & 1:
                ranges.append((position, length))
            position += length
        lengths.append(position)
    h.block_status(min(size - offset, 2**32 - 65536), offset, extents)
    offset = lengths[0]
fd = os.open(target, os.O_WRONLY)
for offset, length in ranges:
    while length > 0:
        n = min(length, 2**21)
        os.pwrite(fd, h.pread(n, offset), offset)
        offset += n
        length -= n
os.close(fd)
h.shutdown()
`;

/** Writes random bytes at the offsets that a file lists, and the same into a raw file. */
const FILL = `
import nbd, sys, os
uri, offsets, raw, size = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
h = nbd.NBD()
h.connect_uri(uri)
fd = os.open(raw, os.O_WRONLY | os.O_CREAT)
os.ftruncate(fd, size)
for offset in map(int, open(offsets)):
    block = os.urandom(${BLOCK})
    h.pwrite(block, offset)
    os.pwrite(fd, block, offset)
h.flush()
h.shutdown()
`;

/** QEMU's own job, told what to do over QMP. */
const BACKUP_JOB = `
import json, socket, sys
monitor, target = sys.argv[1], sys.argv[2]
s = socket.socket(socket.AF_UNIX)
s.connect(monitor)
f = s.makefile("rw")
f.readline()
def command(name, **arguments):
    f.write(json.dumps({"execute": name, "arguments": arguments}) + "\\n")
    f.flush()
    while True:
        reply = json.loads(f.readline())
        if "error" in reply:
            sys.exit(reply["error"]["desc"])
        if "return" in reply:
            return
command("qmp_capabilities")
command("blockdev-add", **{"driver": "file", "node-name": "target", "filename": target})
command("blockdev-backup", **{"job-id": "j", "device": "disk", "target": "target", "sync": "bitmap",
        "bitmap": "${BITMAP_OF_JOB}", "bitmap-mode": "never"})
while True:
    event = json.loads(f.readline())
    if event.get("event") == "BLOCK_JOB_COMPLETED":
        if "error" in event["data"]:
            sys.exit(event["data"]["error"])
        break
command("blockdev-del", **{"node-name": "target"})
`;

export const incremental: Workload = {
  name: 'incremental: 8 TiB, 0.01 % dirty, qemu-storage-daemon to file',
  run: async ({ smoke, folder, race }) => {
    const size = smoke ? 16 * GiB : 8 * TiB;
    const dirty = scatter(size, smoke ? 40 : Math.round((size * 1e-4) / BLOCK), BLOCK);
    const image = join(folder, 'disk.qcow2');
    const [socket, monitor] = [join(folder, 'nbd.sock'), join(folder, 'qmp.sock')];
    await exec('qemu-img', ['create', '-q', '-f', 'qcow2', image, String(size)]);
    for (const name of [BITMAP, BITMAP_OF_JOB])
      await exec('qemu-img', ['bitmap', '--add', image, name]);
    const daemon = await serveImage(image, socket, monitor);
    const uri = `nbd+unix:///disk?socket=${socket}`;
    try {
      const [offsets, fill, copy, job] = await Promise.all([
        write(folder, 'offsets', dirty.join('\n')),
        write(folder, 'fill.py', FILL),
        write(folder, 'copy.py', COPY_WITH_LIBNBD),
        write(folder, 'job.py', BACKUP_JOB),
      ]);
      // Comparing files is quicker than asking the daemon for 8 TiB of status once more.
      const source = join(folder, 'disk.raw');
      await exec(PYTHON, [fill, uri, offsets, source, String(size)]);
      // What is clean holds zeroes, so an empty target is what an earlier full copy would have left.
      const disk = { folder, source, target: size };
      const context = `qemu:dirty-bitmap:${BITMAP}`;
      await race([
        makesFile('lacuna copy --context', disk, (to) =>
          lacuna('--no-flush', '--context', context, uri, to),
        ),
        makesFile('Python, libnbd', disk, (to) => [PYTHON, copy, uri, to, String(size)]),
        makesFile('QEMU, blockdev-backup', disk, (to) => [PYTHON, job, monitor, to]),
      ]);
    } finally {
      await daemon.stop();
    }
  },
};

function serveImage(image: string, socket: string, monitor: string): Promise<RunningServer> {
  const nodes = ['--blockdev', `driver=file,node-name=file,filename=${image}`];
  nodes.push('--blockdev', 'driver=qcow2,node-name=disk,file=file');
  nodes.push('--chardev', `socket,id=qmp,path=${monitor},server=on,wait=off`);
  nodes.push('--monitor', 'chardev=qmp', '--nbd-server', `addr.type=unix,addr.path=${socket}`);
  nodes.push('--export', `type=nbd,id=e,node-name=disk,writable=on,bitmaps.0=${BITMAP}`);
  return startServer('qemu-storage-daemon', nodes, socket);
}

async function write(folder: string, name: string, content: string): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, content);
  return path;
}
