/** A mirror while fio writes through the export and looks whether all is there that it wrote. */
import { createRawFile, openDevice } from 'lacuna';
import { Graph, type MirrorJob, type MirrorOptions, type Root } from 'lacuna/graph';
import { NbdServer } from 'lacuna/nbd';
import { Random } from 'lacuna/testing';
import { expect, onTestFinished, test } from 'vitest';
import { firstSeed, runsOr } from '../../support/long-run.js';
import { finish, serveDevice } from '../../support/nbd-server.js';
import { run } from '../../support/peers.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();

const SIZE = 8 * 1024 * 1024;
const SWITCHES = runsOr(20, 1000);
/** In bytes: fio writes for as long as the job is switched. */
const WRITTEN = Math.ceil(SWITCHES / 30) * SIZE;
const file = (filename: string) => ({ driver: 'file', filename }) as const;

/** A disk behind an export, and how fio works on that. */
async function setUp() {
  await createRawFile('disk.raw', SIZE);
  await createRawFile('target.raw', SIZE);
  const graph = new Graph();
  onTestFinished(() => graph.close());
  await graph.add({ 'node-name': 'disk', ...file('disk.raw') }, { writable: true });
  const guest = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
  const { uri } = await serveDevice(guest);
  const fio = (...more: string[]) =>
    finish('fio', [
      ...['--name=v', '--ioengine=nbd', `--uri=${uri}`, '--rw=randwrite', '--bsrange=512-64k'],
      ...['--iodepth=16', `--size=${SIZE}`, '--verify=crc32c', '--verify_fatal=1', ...more],
    ]);
  return { graph, guest, fio };
}

/** Switches and pauses a job at random moments; `between` is called a few times. */
async function steer(job: MirrorJob, between: () => Promise<void> = async () => {}): Promise<void> {
  const random = new Random(firstSeed());
  for (let i = 0; i < SWITCHES; i++) {
    const copyMode = i % 2 === 0 ? 'write-blocking' : 'background';
    job.change({ copyMode });
    const verb = random.pick(['pause', 'resume', 'nothing'] as const);
    if (verb !== 'nothing') job[verb]();
    if (i % 20 === 10) await between();
    await new Promise((resolve) => setTimeout(resolve, random.below(12)));
  }
  job.resume();
}

/** A target that fails is tried again. */
async function completeAtLast(job: MirrorJob): Promise<void> {
  for (;;) {
    try {
      await job.complete();
      return;
    } catch (error) {
      if (job.state !== 'running') throw error;
    }
  }
}

async function checkOne(
  setup: { graph: Graph; guest: Root; fio: (...more: string[]) => ReturnType<typeof finish> },
  job: MirrorJob,
  between?: () => Promise<void>,
): Promise<void> {
  const { graph, guest, fio } = setup;
  // Only a target that was reached once is tried again.
  await expect.poll(() => graph.edges.some(({ child }) => child === 'target')).toBe(true);
  const written = fio('--do_verify=1', `--io_size=${WRITTEN}`);
  await steer(job, between);
  const first = await written;
  expect(first.stdout + first.stderr).toMatch(/err= 0/);
  await completeAtLast(job);
  expect(guest.node.name).not.toBe('disk.mirror');
  await run('cmp', ['disk.raw', 'target.raw']);
  const again = await fio('--verify_only', `--io_size=${WRITTEN}`);
  expect(again.stdout + again.stderr).toMatch(/err= 0/);
}

const mirror = (graph: Graph, target: MirrorOptions['target']) =>
  graph.mirror({ node: 'disk', target, onTargetError: 'ignore' });

test('fio finds all that it wrote, whatever the mode was, with a target of which a hundredth of the requests fail', async () => {
  const setup = await setUp();
  const failing = { driver: 'error', rate: 0.01, file: file('target.raw') } as const;
  await checkOne(
    setup,
    mirror(setup.graph, { ...failing, operations: ['write', 'zero', 'flush'] }),
  );
});

test('fio finds all that it wrote where the connection to a target behind a filter is cut', async () => {
  const setup = await setUp();
  const device = await openDevice(file('target.raw'), { writable: true });
  onTestFinished(() => device.close());
  const address = { type: 'unix', path: `${process.cwd()}/target.sock` } as const;
  let server = new NbdServer({ exports: [{ name: '', device }] });
  await server.listen(address);
  onTestFinished(() => server.close({ timeoutMs: 100 }));
  const far = { driver: 'nbd', server: address, 'reconnect-delay': 60 } as const;
  const target = { driver: 'throttle', 'requests-per-second': 1e9, file: far } as const;
  await checkOne(setup, mirror(setup.graph, target), async () => {
    await server.close({ timeoutMs: 0 });
    server = new NbdServer({ exports: [{ name: '', device }] });
    await server.listen(address);
  });
});

test('fio finds all that it wrote where the target has come into use meanwhile', async () => {
  const { graph, guest, fio } = await setUp();
  const job = mirror(graph, file('target.raw'));
  const written = fio('--do_verify=1', `--io_size=${2 * WRITTEN}`);
  await steer(job);
  await completeAtLast(job);
  expect(guest.node.name).toBe('disk.target');
  const { stdout, stderr } = await written;
  expect(stdout + stderr).toMatch(/err= 0/);
});
